-- Summed rows (design 2.4): a row of events may stand for several events of one request under an Idempotency-Key.
-- Its time is the start of their window, `events` their number, always above 1: a row of 1 is a single event.

-- The indices that are counted in such rows: their events are not to be found by keys of their own.
ALTER TABLE claims ADD COLUMN summed int4multirange NOT NULL DEFAULT '{}';

-- Each event keeps its bounds, so a sum keeps theirs. What is there kept narrower ones: nothing has to be read again.
ALTER TABLE events ADD CONSTRAINT events_units_bounded CHECK (abs(units) < 1e15 * events) NOT VALID;
ALTER TABLE events DROP CONSTRAINT events_units_check;
DO $$
DECLARE
    month regclass;
BEGIN
    -- A month's own copy of the check stays when the parent's goes: it was made beside the table, and attached.
    FOR month IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS events_units_check', month);
    END LOOP;
END
$$;
