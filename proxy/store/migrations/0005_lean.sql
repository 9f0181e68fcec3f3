-- Putting a request away touches as few index pages as its questions need. An index that few rows enter costs nothing
-- when a row comes that does not.

-- Sequences are given out by the store itself, many at once.
CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;

INSERT INTO sequences (name, last)
SELECT 'deferrals', COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'deferrals'), 0);

-- What is due is found by the index that claims it. Here are only those whose next try was put off.
DROP INDEX deferrals_due;
CREATE INDEX deferrals_put_off ON deferrals (workspace, state, head, next_attempt_at, expires_at)
    WHERE state = 'queued' AND head = 1 AND next_attempt_at > enqueued_at;

-- A queue in the order of acceptance, with the ages of what waits in it.
DROP INDEX deferrals_listing_of;
DROP INDEX deferrals_age;
CREATE INDEX deferrals_queue ON deferrals (workspace, state, seq, enqueued_at);

-- One index for both questions about a caller: does it have this key, and how many rows? Keys that are NULL differ.
DROP INDEX deferrals_key;
DROP INDEX deferrals_caller;
CREATE UNIQUE INDEX deferrals_key ON deferrals (workspace, caller, idempotency_key)
    WHERE state IN ('queued', 'leased') AND caller IS NOT NULL;

-- Ids that Holdfast makes grow: with the id in front, new ones come to lie side by side, whatever the workspace.
DROP INDEX deferrals_task;
CREATE INDEX deferrals_task ON deferrals (task_id, workspace, seq) WHERE task_id IS NOT NULL;

-- The head of a context in one index, those behind it in others: most deferrals are their own heads.
DROP INDEX deferrals_context_head;
CREATE UNIQUE INDEX deferrals_context_head ON deferrals (context_id, workspace)
    WHERE head = 1 AND context_id IS NOT NULL;
DROP INDEX deferrals_context;
CREATE INDEX deferrals_context ON deferrals (context_id, workspace, state, seq)
    WHERE completed_at IS NULL AND head = 0 AND adopted = 0 AND context_id IS NOT NULL;
DROP INDEX deferrals_context_priority;
CREATE INDEX deferrals_context_priority ON deferrals (context_id, workspace, priority)
    WHERE completed_at IS NULL AND head = 0 AND adopted = 0 AND context_id IS NOT NULL;
