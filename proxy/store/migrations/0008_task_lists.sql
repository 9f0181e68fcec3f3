-- What a caller's tasks have come to, the last first. Only deferrals that have ended are in it: putting away costs no
-- more than before.

CREATE INDEX deferrals_tasks_ended ON deferrals (workspace, caller, completed_at, seq)
    WHERE completed_at IS NOT NULL AND task_id IS NOT NULL;

-- Agents that answer in another context than they were asked in are few.
CREATE INDEX task_aliases_contexts ON task_aliases (deferral) WHERE upstream_context_id IS NOT NULL;
