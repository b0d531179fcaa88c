-- What an operator decides about sidecars that are gone and events in quarantine, and why.

-- Why an operator gave up on it; null where nobody did, also for a producer that retired by itself.
ALTER TABLE producers ADD COLUMN retired_reason text CHECK (length(retired_reason) <= 2000);

-- The event's place in the batch of the record, from 0; null where the whole record is in quarantine, and in rows
-- that are older than the column.
ALTER TABLE quarantine ADD COLUMN place integer CHECK (place >= 0);

-- What was decided. Discarded events stay in quarantine for the proof, retried ones are counted elsewhere by now.
ALTER TABLE quarantine ADD COLUMN resolved_as text CHECK (resolved_as IN ('discarded', 'retried'));
UPDATE quarantine SET resolved_as = 'discarded' WHERE resolved_at IS NOT NULL;
ALTER TABLE quarantine ADD CONSTRAINT resolved_in_some_way CHECK ((resolved_at IS NULL) = (resolved_as IS NULL));
CREATE INDEX quarantine_open ON quarantine (quarantined) WHERE resolved_at IS NULL;
