-- name: growth_quiet
-- No vacuum of its own comes in the middle of a round: what the fill left is vacuumed before it.
ALTER SYSTEM SET autovacuum = off

-- name: growth_reload
-- Heed that.
SELECT pg_reload_conf()

-- name: growth_start
-- The end of what is filled in: the last full window.
SELECT date_bin('15 minutes', now(), 'epoch')

-- name: growth_events
-- Events as a drain stores them, in the order of their time: keys as good as random, users in turn.
INSERT INTO events (event_time, event_key, fingerprint, shard, revision, received_at, user_id, source, id, event_type,
                    units)
SELECT at, substr(hash, 1, 16), substr(hash, 17, 8), 0, 0, at,
       'cus_' || lpad((n %% %(users)s)::text, 6, '0'), '', 'filled00-' || lpad(n::text, 12, '0') || '-0000', 'api_call', 1
FROM generate_series(1, %(count)s) AS n,
     LATERAL (SELECT %(start)s::timestamptz + n * %(step_s)s * interval '1 second' AS at) AS moment,
     LATERAL (SELECT sha256(timestamptz_send(at)) AS hash) AS hashed

-- name: growth_usage
-- What these events add up to.
INSERT INTO usage AS old (shard, user_id, meter, window_start, units, events)
SELECT 0, user_id, event_type, date_bin('15 minutes', event_time, 'epoch'), sum(units), count(*)
FROM events WHERE event_time > %(start)s AND event_time <= %(end)s
GROUP BY 2, 3, 4
ON CONFLICT (user_id, meter, window_start, dimensions)
DO UPDATE SET units = old.units + EXCLUDED.units, events = old.events + EXCLUDED.events

-- name: growth_settle
-- What autovacuum does by and by.
VACUUM (ANALYZE) events

-- name: growth_settle_usage
-- The same of what they add up to.
VACUUM (ANALYZE) usage

-- name: growth_checkpoint
-- Nothing of the fill is left to be written during a round.
CHECKPOINT

-- name: growth_bytes
-- What events take with their key.
SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = 'events'::regclass
