-- The stream journal by tries, with running totals; the boot_ids that a workspace has shown before.

-- The try that an event belongs to: what an earlier one left is not part of the answer.
ALTER TABLE stream_journal ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
-- Bytes of this event and of all before it, so that a bound is held without counting.
ALTER TABLE stream_journal ADD COLUMN through INTEGER NOT NULL DEFAULT 0;

ALTER TABLE workspaces ADD COLUMN past_boots TEXT;
