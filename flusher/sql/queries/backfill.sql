-- name: list_backfills
-- Every backfill, or the one of an id, the newest first, with how many events each brought.
SELECT backfill, name, reason, started_at, sent, accepted, duplicates, conflicts, rejected, sent_at, undo_reason,
       undone_at,
       (SELECT count(*) FROM backfill_events WHERE backfill_events.backfill = backfills.backfill)
FROM backfills WHERE %(backfill)s::text IS NULL OR backfill = %(backfill)s
ORDER BY started_at DESC, backfill

-- name: begin_backfill
-- A file is going to be sent; one that was before keeps its first name and reason.
INSERT INTO backfills (backfill, name, reason) VALUES (%(backfill)s, %(name)s, %(reason)s) ON CONFLICT DO NOTHING

-- name: hold_backfill
-- Whether it is undone; nobody begins to undo it before the transaction ends.
SELECT undo_reason FROM backfills WHERE backfill = %(backfill)s FOR SHARE

-- name: note_backfilled
-- Events that are going to be sent and are not here, each looked up by its primary key alone.
INSERT INTO backfill_events (backfill, event_time, event_key, user_id, source, id)
SELECT %(backfill)s, 'epoch'::timestamptz + time_us * interval '1 microsecond', event_key, user_id, source, id
FROM unnest(%(times_us)s::bigint[], %(keys)s::bytea[], %(users)s::text[], %(sources)s::text[], %(ids)s::text[])
    AS new (time_us, event_key, user_id, source, id)
LEFT JOIN LATERAL (
    SELECT true AS there FROM events
    WHERE event_time = 'epoch'::timestamptz + new.time_us * interval '1 microsecond'
      AND events.event_key = new.event_key
    LIMIT 1
) AS known ON true
WHERE there IS NULL
ON CONFLICT DO NOTHING

-- name: finish_backfill
-- All of a file is answered.
UPDATE backfills SET sent = %(sent)s, accepted = %(accepted)s, duplicates = %(duplicates)s, conflicts = %(conflicts)s,
                     rejected = %(rejected)s, sent_at = now()
WHERE backfill = %(backfill)s

-- name: begin_undo
-- What a backfill brought is going to be voided; whoever is about to note more of it is waited for.
UPDATE backfills SET undo_reason = coalesce(undo_reason, %(reason)s) WHERE backfill = %(backfill)s

-- name: finish_undo
-- Every void is answered.
UPDATE backfills SET undone_at = now() WHERE backfill = %(backfill)s

-- name: list_backfilled
-- What a backfill brought, in the order of its primary key behind a place, some at a time.
SELECT event_time, event_key, user_id, source, id FROM backfill_events
WHERE backfill = %(backfill)s AND (event_time, event_key) > (%(time)s, %(key)s)
ORDER BY event_time, event_key LIMIT %(limit)s

-- name: list_customers_of_users
-- The customers of users; a user without an entry is its own.
SELECT DISTINCT coalesce(customer_users.customer, wanted.user_id)
FROM unnest(%(users)s::text[]) AS wanted (user_id) LEFT JOIN customer_users USING (user_id)
