-- What an admin asks of a queue, and what one caller may have in it.

CREATE INDEX deferrals_age ON deferrals (workspace, state, enqueued_at, seq) WHERE state = 'queued';
CREATE INDEX deferrals_caller ON deferrals (workspace, caller)
    WHERE state IN ('queued', 'leased') AND caller IS NOT NULL;
