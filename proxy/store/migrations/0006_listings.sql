-- What a caller looks back on: its ended deferrals, the newest first. Those that are active are found by its keys.

CREATE INDEX deferrals_ended_of ON deferrals (workspace, caller) WHERE completed_at IS NOT NULL AND caller IS NOT NULL;
