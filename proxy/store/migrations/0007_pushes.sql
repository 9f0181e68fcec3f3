-- Push notifications: who is told of a deferral's task, and how far.

CREATE TABLE pushes (
    deferral INTEGER NOT NULL REFERENCES deferrals (seq) ON DELETE CASCADE,
    id TEXT NOT NULL,
    protocol TEXT NOT NULL,
    -- The URL, the token and the credentials, sealed with the vault's key.
    sealed BLOB NOT NULL,
    -- How far the receiver was told: the last event of the journal, and what it knows of the task.
    through INTEGER NOT NULL,
    told TEXT NOT NULL,
    tries INTEGER NOT NULL,
    failing_since INTEGER,
    next_at INTEGER,
    lease_token TEXT,
    lease_owner TEXT,
    lease_until INTEGER,
    CHECK ((lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (lease_until IS NULL)),
    PRIMARY KEY (deferral, id)
) STRICT;

CREATE INDEX pushes_leased ON pushes (lease_owner) WHERE lease_owner IS NOT NULL;
