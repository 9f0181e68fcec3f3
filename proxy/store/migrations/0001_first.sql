-- The first schema. Instants are whole microseconds since 1970-01-01T00:00:00Z, yes and no are 1 and 0, JSON is text.

CREATE TABLE workspaces (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    status TEXT NOT NULL,
    desired TEXT NOT NULL,
    lifecycle TEXT,
    delivery_mode TEXT NOT NULL,
    url TEXT,
    url_source TEXT NOT NULL,
    agent_card TEXT,
    incarnation INTEGER NOT NULL,
    boot_id TEXT,
    bound INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    owner TEXT,
    parent TEXT,
    runtime TEXT,
    data TEXT,
    config_version INTEGER NOT NULL,
    settings TEXT NOT NULL,
    registered_at INTEGER,
    started_at INTEGER,
    ready_at INTEGER,
    exited_at INTEGER,
    announced_at INTEGER,
    restart_started_at INTEGER,
    restart_returned_at INTEGER,
    stopped_at INTEGER,
    restart_pending INTEGER NOT NULL,
    abandoned_at INTEGER,
    offline_rule TEXT,
    strike_count INTEGER NOT NULL,
    first_strike_at INTEGER,
    last_verdict TEXT,
    last_verdict_rule TEXT,
    last_verdict_at INTEGER
) STRICT;

-- One narrow row a workspace, written by coalesced heartbeats: a flush of thousands touches few pages.
CREATE TABLE signs (
    workspace INTEGER PRIMARY KEY REFERENCES workspaces (number),
    last_sign_at INTEGER,
    last_heartbeat_at INTEGER,
    agent_down_at INTEGER,
    active_tasks INTEGER,
    max_concurrent INTEGER,
    progress INTEGER
) STRICT;

CREATE INDEX signs_down ON signs (workspace) WHERE agent_down_at IS NOT NULL;

CREATE TABLE restarts (
    workspace INTEGER NOT NULL REFERENCES workspaces (number),
    generation INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    asked_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    rule TEXT NOT NULL,
    phase TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    returned_at INTEGER,
    finished_at INTEGER,
    error TEXT,
    lease_owner TEXT,
    lease_until INTEGER,
    PRIMARY KEY (workspace, generation)
) STRICT;

CREATE INDEX restarts_open ON restarts (workspace, generation) WHERE phase IN ('recorded', 'stopped', 'started');
CREATE INDEX restarts_started ON restarts (started_at);

-- Digests only: no token is ever stored.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    incarnation INTEGER
) STRICT;

CREATE INDEX tokens_owned ON tokens (kind, name);

-- Active rows and bytes of each queue, kept in the transaction of every change: counting a million rows takes a second.
CREATE TABLE queue_sizes (
    workspace INTEGER PRIMARY KEY REFERENCES workspaces (number),
    depth INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

CREATE INDEX queue_sizes_waiting ON queue_sizes (workspace) WHERE depth > 0;

-- What is read and written often. Bodies lie elsewhere, so that a lease renewal does not rewrite megabytes.
CREATE TABLE deferrals (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workspace INTEGER NOT NULL REFERENCES workspaces (number),
    caller TEXT,
    method TEXT NOT NULL,
    tail TEXT NOT NULL,
    headers TEXT NOT NULL,
    enqueued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    binding TEXT NOT NULL,
    protocol TEXT NOT NULL,
    operation TEXT NOT NULL,
    streaming INTEGER NOT NULL,
    rpc_id BLOB NOT NULL,
    message_id TEXT,
    context_id TEXT,
    task_id TEXT,
    idempotency_key TEXT,
    digest TEXT,
    maybe INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    gateway_since INTEGER,
    adopted INTEGER NOT NULL,
    lease_token TEXT,
    lease_owner TEXT,
    lease_until INTEGER,
    leased_at INTEGER,
    completed_at INTEGER,
    last_error TEXT,
    request_id TEXT,
    task_json BLOB,
    task_version TEXT,
    task_state TEXT,
    bytes INTEGER NOT NULL,
    head INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    CHECK (state IN ('queued', 'leased', 'completed', 'dead_lettered', 'expired', 'cancelled', 'dropped')),
    CHECK ((state = 'leased') = (lease_token IS NOT NULL AND lease_owner IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK ((state IN ('queued', 'leased')) = (completed_at IS NULL)),
    CHECK (adopted = 0 OR state <> 'queued')
) STRICT;

-- A claim walks this one in its own order and reads no row that it does not take. The constant columns are there so
-- that the index alone answers the question.
CREATE INDEX deferrals_claim ON deferrals (workspace, state, head, rank DESC, seq, next_attempt_at, expires_at)
    WHERE state = 'queued' AND head = 1;
CREATE INDEX deferrals_due ON deferrals (workspace, state, head, next_attempt_at, expires_at)
    WHERE state = 'queued' AND head = 1;
CREATE INDEX deferrals_overdue ON deferrals (state, expires_at, seq) WHERE state = 'queued';
CREATE INDEX deferrals_leases ON deferrals (state, lease_until, seq) WHERE state = 'leased';
CREATE INDEX deferrals_ended ON deferrals (completed_at, seq) WHERE completed_at IS NOT NULL;
CREATE INDEX deferrals_listing ON deferrals (state, seq);
CREATE INDEX deferrals_listing_of ON deferrals (workspace, state, seq);
CREATE INDEX deferrals_task ON deferrals (workspace, task_id, seq) WHERE task_id IS NOT NULL;
-- The order of a context. The second one holds the law: a context has one head.
CREATE INDEX deferrals_context ON deferrals (workspace, context_id, state, seq)
    WHERE state IN ('queued', 'leased') AND adopted = 0 AND context_id IS NOT NULL;
CREATE UNIQUE INDEX deferrals_context_head ON deferrals (workspace, context_id)
    WHERE head = 1 AND context_id IS NOT NULL;
CREATE INDEX deferrals_context_priority ON deferrals (workspace, context_id, priority)
    WHERE state IN ('queued', 'leased') AND adopted = 0 AND context_id IS NOT NULL;
-- One active deferral a key, as long as it is active; and the completed ones, for late repetitions.
CREATE UNIQUE INDEX deferrals_key ON deferrals (workspace, caller, idempotency_key)
    WHERE state IN ('queued', 'leased') AND caller IS NOT NULL AND idempotency_key IS NOT NULL;
CREATE INDEX deferrals_key_completed ON deferrals (workspace, caller, idempotency_key, completed_at)
    WHERE state = 'completed' AND caller IS NOT NULL AND idempotency_key IS NOT NULL;

CREATE TABLE requests (
    deferral INTEGER PRIMARY KEY REFERENCES deferrals (seq) ON DELETE CASCADE,
    body BLOB NOT NULL,
    credentials BLOB
) STRICT;

CREATE TABLE answers (
    deferral INTEGER PRIMARY KEY REFERENCES deferrals (seq) ON DELETE CASCADE,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- The agent's own ids for what its caller knows by the deferral's provisional task_id and context_id.
CREATE TABLE task_aliases (
    deferral INTEGER PRIMARY KEY REFERENCES deferrals (seq) ON DELETE CASCADE,
    workspace INTEGER NOT NULL REFERENCES workspaces (number),
    caller TEXT,
    upstream_task_id TEXT,
    upstream_context_id TEXT
) STRICT;

CREATE INDEX task_aliases_upstream ON task_aliases (workspace, upstream_task_id, caller);

-- Events of a deferred stream, in order, for callers who come back.
CREATE TABLE stream_journal (
    deferral INTEGER NOT NULL REFERENCES deferrals (seq) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    event BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (deferral, sequence)
) STRICT;

-- Who gave which task to whom. No foreign keys: history outlives workspaces.
CREATE TABLE delegations (
    delegation_id TEXT PRIMARY KEY,
    caller_id TEXT NOT NULL,
    callee_id TEXT NOT NULL,
    task_preview TEXT NOT NULL,
    status TEXT NOT NULL,
    last_heartbeat INTEGER,
    deadline INTEGER NOT NULL,
    result_preview TEXT,
    error_detail TEXT,
    retry_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    idempotency_key TEXT
) STRICT;

CREATE INDEX delegations_in_flight ON delegations (last_heartbeat)
    WHERE status IN ('queued', 'dispatched', 'in_progress');
CREATE INDEX delegations_caller ON delegations (caller_id, created_at DESC);
CREATE INDEX delegations_callee ON delegations (callee_id, created_at DESC);
CREATE UNIQUE INDEX delegations_key ON delegations (caller_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- The ids only grow, so that a reader of events can say how far it came.
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    made_by TEXT NOT NULL,
    action TEXT NOT NULL,
    verdict TEXT NOT NULL,
    rule TEXT NOT NULL,
    policy TEXT NOT NULL,
    evidence TEXT NOT NULL,
    request_id TEXT,
    receipt TEXT,
    incarnation INTEGER NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

CREATE INDEX decisions_workspace ON decisions (workspace_id, id);
CREATE INDEX decisions_age ON decisions (at, id);

-- What a ping writes, to see a commit reach the disk.
CREATE TABLE pulse (
    number INTEGER PRIMARY KEY,
    beats INTEGER NOT NULL
) STRICT;

INSERT INTO pulse (number, beats) VALUES (1, 0);
