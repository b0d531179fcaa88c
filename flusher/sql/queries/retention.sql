-- name: lock_retention
-- One flusher at a time moves floors and drops what is below; the others leave it to that one.
SELECT pg_try_advisory_xact_lock(7386136)

-- name: read_drop_floors
-- Up to where claims and events may be dropped; null for nothing.
SELECT nullif(claims_dropped_to, '-infinity'), nullif(event_floor, '-infinity') FROM ledger

-- name: move_claim_floor
-- No batch that any unretired producer can still bring was accepted at or before the floor. Claims are kept for `keep`
-- below that, so that a batch above it meets every claim that it may repeat.
UPDATE ledger SET claim_floor = greatest(claim_floor, wanted.floor),
                  claims_dropped_to = greatest(claims_dropped_to, wanted.floor - %(keep)s)
FROM (
    SELECT date_trunc('hour', least(now() - %(late)s, (
        SELECT min(watermark) FROM positions JOIN producers USING (producer) WHERE retired_at IS NULL
    ))) - interval '1 microsecond' AS floor
) AS wanted
WHERE claim_floor < wanted.floor OR claims_dropped_to < wanted.floor - %(keep)s

-- name: announce_event_floor
-- Have sidecars refuse what nothing needs any more: whole months that end `keep` ago.
UPDATE ledger SET event_floor_next = wanted.floor, event_floor_next_at = now()
FROM (
    SELECT date_trunc('month', least(now() - %(keep)s, (SELECT min(since) FROM events_needed)), 'UTC')
           - interval '1 microsecond' AS floor
) AS wanted
WHERE event_floor_next < wanted.floor

-- name: move_event_floor
-- What was accepted before the sidecars knew is in Postgres: every unretired producer's watermark is `heard` behind it.
UPDATE ledger SET event_floor = event_floor_next
WHERE event_floor < event_floor_next
  AND now() >= event_floor_next_at + %(heard)s
  AND NOT EXISTS (
      SELECT FROM positions JOIN producers USING (producer)
      WHERE retired_at IS NULL AND watermark < event_floor_next_at + %(heard)s
  )
  AND NOT EXISTS (SELECT FROM events_needed WHERE since <= event_floor_next)

-- name: drop_claims
-- Some of the claims at or before a time; one that a drain holds stays for the next time.
WITH old AS (
    SELECT claim_key FROM claims WHERE accepted_at <= %(to)s ORDER BY accepted_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM claims USING old WHERE claims.claim_key = old.claim_key

-- name: begin_counting
-- A month that is going to be dropped.
INSERT INTO dropped_events (month, shard, counted_to) SELECT %(month)s, shard, %(month)s FROM shards
ON CONFLICT DO NOTHING

-- name: next_uncounted
-- Where counting a month goes on, and to where: through the next hour that has anything. No row when all is counted.
SELECT shard, counted_to, least(%(end)s, date_trunc('hour', least(
    (SELECT min(event_time) FROM events
     WHERE events.shard = dropped_events.shard AND event_time >= counted_to AND event_time < %(end)s),
    (SELECT min(window_start) FROM usage
     WHERE usage.shard = dropped_events.shard AND window_start >= counted_to AND window_start < %(end)s)
), 'UTC') + interval '1 hour')
FROM dropped_events WHERE month = %(month)s AND counted_to < %(end)s
ORDER BY counted_to, shard LIMIT 1 FOR UPDATE

-- name: count_dropped
-- Remember the events of a part of a month, and what usage shows for them.
UPDATE dropped_events SET
    counted_to = %(end)s,
    events = dropped_events.events + counted.events, units = dropped_events.units + counted.units,
    usage_events = usage_events + used.events, usage_units = usage_units + used.units
FROM (
    SELECT coalesce(sum(events), 0)::bigint AS events, coalesce(sum(units), 0) AS units
    FROM events WHERE shard = %(shard)s AND event_time >= %(start)s AND event_time < %(end)s
) AS counted, (
    SELECT coalesce(sum(events), 0)::bigint AS events, coalesce(sum(units), 0) AS units
    FROM usage WHERE shard = %(shard)s AND window_start >= %(start)s AND window_start < %(end)s
) AS used
WHERE month = %(month)s AND shard = %(shard)s

-- name: keep_boundary_events
-- Keep what an adjustment of a billed period still reads one by one: the windows that the period begins or ends inside.
INSERT INTO boundary_events
SELECT event_time, event_key, revision, events, user_id, event_type, units, properties
FROM (
    SELECT DISTINCT customer, date_bin('15 minutes', boundary.at, 'epoch') AS window_start
    FROM billed JOIN subscriptions ON subscriptions.id = billed.subscription
    CROSS JOIN LATERAL (VALUES (period_start), (period_end)) AS boundary (at)
    WHERE boundary.at >= %(start)s AND boundary.at < %(end)s
      AND boundary.at <> date_bin('15 minutes', boundary.at, 'epoch')
) AS cut
JOIN events ON event_time >= cut.window_start AND event_time < cut.window_start + interval '15 minutes'
WHERE shard = %(shard)s AND voided_at IS NULL AND (
    user_id = cut.customer OR user_id IN (SELECT user_id FROM customer_users WHERE customer = cut.customer)
)
ON CONFLICT DO NOTHING

-- name: hurry_lock
-- Dropping a month waits for whoever reads events, and everybody who inserts waits behind it: rather try again later.
SELECT set_config('lock_timeout', '300ms', true)

-- name: drop_month
-- The whole month, with its part of the primary key.
DROP TABLE {table}

-- name: note_dropped
-- It is dropped, in the same transaction.
UPDATE dropped_events SET dropped_at = now() WHERE month = %(month)s RETURNING events
