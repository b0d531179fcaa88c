-- name: insert_voids
-- Voids that are new; their own primary keys among events say that they are.
INSERT INTO voids (event_time, event_key, shard, user_id, source, id, reason, received_at)
SELECT 'epoch'::timestamptz + time_us * interval '1 microsecond', event_key, %(shard)s, user_id, source, id, reason,
       'epoch'::timestamptz + received_us * interval '1 microsecond'
FROM unnest(%(times_us)s::bigint[], %(keys)s::bytea[], %(users)s::text[], %(sources)s::text[], %(ids)s::text[],
            %(reasons)s::text[], %(received_us)s::bigint[])
    AS new (time_us, event_key, user_id, source, id, reason, received_us)

-- name: find_voided
-- Events of a range of time that voids wait for and that are stored by now, each looked up by its primary key alone. One
-- of a user that was erased since is none: its properties, and so what it counted as, are gone.
SELECT found.*
FROM voids CROSS JOIN LATERAL (
    SELECT event_key, (extract(epoch FROM event_time) * 1000000)::bigint, user_id, event_type, revision, units::text,
           coalesce(properties::text, '')
    FROM events
    WHERE events.event_time = voids.event_time AND events.event_key = voids.event_key
      AND events.user_id = voids.user_id
    LIMIT 1
) AS found
WHERE voids.shard = %(shard)s AND voids.voided_at IS NULL
  AND voids.event_time >= 'epoch'::timestamptz + %(first_us)s * interval '1 microsecond'
  AND voids.event_time <= 'epoch'::timestamptz + %(last_us)s * interval '1 microsecond'
LIMIT %(limit)s

-- name: mark_voided
-- Events are cancelled, and their voids no longer wait. The first and the last time leave out the other months.
WITH wanted AS MATERIALIZED (
    SELECT 'epoch'::timestamptz + time_us * interval '1 microsecond' AS event_time, event_key
    FROM unnest(%(times_us)s::bigint[], %(keys)s::bytea[]) AS one (time_us, event_key)
), marked AS (
    UPDATE events SET voided_at = now() FROM wanted
    WHERE events.event_time = wanted.event_time AND events.event_key = wanted.event_key
      AND events.event_time >= 'epoch'::timestamptz + %(first_us)s * interval '1 microsecond'
      AND events.event_time <= 'epoch'::timestamptz + %(last_us)s * interval '1 microsecond'
)
UPDATE voids SET voided_at = now() FROM wanted
WHERE voids.event_time = wanted.event_time AND voids.event_key = wanted.event_key

-- name: read_voided
-- Those of some events that are cancelled.
SELECT found.*
FROM unnest(%(times_us)s::bigint[], %(keys)s::bytea[]) AS wanted (time_us, key) CROSS JOIN LATERAL (
    SELECT event_key, wanted.time_us, user_id, event_type, revision, units::text, coalesce(properties::text, '')
    FROM events
    WHERE event_time = 'epoch'::timestamptz + wanted.time_us * interval '1 microsecond' AND event_key = wanted.key
      AND voided_at IS NOT NULL
    LIMIT 1
) AS found

-- name: lower_usage
-- Take out of the usage of counters what was in it.
UPDATE usage SET units = usage.units - less.units, events = usage.events - less.events, changed_at = now()
FROM unnest(%(users)s::text[], %(meters)s::text[], %(dimensions)s::text[], %(windows)s::bigint[],
            %(units)s::numeric[], %(events)s::bigint[]) AS less (user_id, meter, dimensions, win, units, events)
WHERE usage.user_id = less.user_id AND usage.meter = less.meter
  AND usage.window_start = 'epoch'::timestamptz + less.win * interval '15 minutes'
  AND usage.dimensions = less.dimensions::jsonb
