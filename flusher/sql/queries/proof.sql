-- name: proof_positions
-- Every producer's running count on every shard, what became of it, and whether its journal has to be asked: that of
-- one that was let go, or that goes on under another id (rule 7), has nothing of it which Postgres lacks.
SELECT producer, shard, sequence, digest, events, units,
       inserted_events, inserted_units, duplicate_events, duplicate_units,
       conflict_events, conflict_units, quarantined_events, quarantined_units,
       EXISTS (SELECT 1 FROM producers WHERE producers.producer = positions.producer AND retired_at IS NULL)
       AND NOT EXISTS (SELECT 1 FROM producers AS next WHERE next.predecessor = positions.producer)
FROM positions ORDER BY producer, shard

-- name: proof_events
-- What the events table holds, and what it held before months of it were dropped, by shard.
SELECT shard, coalesce(sum(events), 0)::bigint, coalesce(sum(units), 0) FROM (
    SELECT shard, events, units FROM events
    UNION ALL SELECT shard, events, units FROM dropped_events WHERE dropped_at IS NOT NULL
) AS counted GROUP BY shard

-- name: proof_hold
-- No month is dropped while the proof reads. Taken before its snapshot, which would not know of a dropped one.
LOCK TABLE events IN ACCESS SHARE MODE

-- name: proof_dropped
-- Dropped months of events, how many events they had, and those whose usage is no longer what it was then (rule 15).
SELECT count(DISTINCT month), coalesce(sum(dropped.events), 0)::bigint,
       coalesce(array_agg(DISTINCT to_char(month AT TIME ZONE 'UTC', 'YYYY-MM'))
                FILTER (WHERE (usage_events, usage_units) IS DISTINCT FROM (used.events, used.units)), '{}')
FROM dropped_events AS dropped CROSS JOIN LATERAL (
    SELECT coalesce(sum(usage.events), 0)::bigint AS events, coalesce(sum(usage.units), 0) AS units FROM usage
    WHERE usage.shard = dropped.shard AND window_start >= month AND window_start < month + interval '1 month'
) AS used
WHERE dropped_at IS NOT NULL

-- name: proof_refused
-- Conflicts that are kept, by shard.
SELECT shard, count(*)::bigint, coalesce(sum(units), 0) FROM event_conflicts GROUP BY shard

-- name: proof_quarantined
-- What is in quarantine, discarded or not, by shard. What was brought in again is counted where it is now.
SELECT shard, coalesce(sum(events), 0)::bigint, coalesce(sum(units), 0)
FROM quarantine WHERE resolved_as IS DISTINCT FROM 'retried' GROUP BY shard

-- name: proof_open
-- What an operator has to look at, and the traces of what was decided: open discrepancies and all that were recorded,
-- holes that nobody accepted and accepted ones, events that were discarded from quarantine and retried.
SELECT (SELECT count(*) FROM discrepancies WHERE resolved_at IS NULL)::bigint,
       (SELECT count(*) FROM discrepancies)::bigint,
       (SELECT count(*) FROM holes WHERE accepted_at IS NULL)::bigint,
       (SELECT count(*) FROM holes WHERE accepted_at IS NOT NULL)::bigint,
       (SELECT coalesce(sum(events), 0) FROM quarantine WHERE resolved_as = 'discarded')::bigint,
       (SELECT coalesce(sum(events), 0) FROM quarantine WHERE resolved_as = 'retried')::bigint

-- name: proof_given_up
-- Sidecars that an operator gave up on, and why.
SELECT producer, retired_reason FROM producers WHERE retired_at IS NOT NULL AND retired_reason IS NOT NULL
ORDER BY retired_at DESC, producer

-- name: proof_successors
-- Sidecars whose records go on under another id, because their chain could not be gone on with.
SELECT predecessor, producer FROM producers WHERE predecessor IS NOT NULL ORDER BY registered_at DESC, producer

-- name: proof_months
-- The months in which a shard has events or usage, but for those whose events were dropped.
SELECT DISTINCT date_trunc('month', moment, 'UTC') FROM (
    SELECT event_time AS moment FROM events WHERE shard = %(shard)s
    UNION ALL SELECT window_start FROM usage WHERE shard = %(shard)s
) AS moments
WHERE date_trunc('month', moment, 'UTC') NOT IN (SELECT month FROM dropped_events WHERE dropped_at IS NOT NULL)
ORDER BY 1

-- name: recount_events
-- Events that count in groups that feed the same counters: by properties only where a meter reads them. Those of erased
-- users have none any more; `proof_erased` looks after their usage.
SELECT user_id, event_type, revision, floor(extract(epoch FROM event_time) / 900)::bigint AS win,
       CASE WHEN event_type = ANY(%(detailed)s) THEN coalesce(properties::text, '') ELSE '' END AS seen,
       sum(units)::text, sum(events)::bigint
FROM events
WHERE shard = %(shard)s AND event_time >= %(start)s AND event_time < %(end)s AND voided_at IS NULL
  AND user_id NOT IN (SELECT token FROM erased_users)
GROUP BY 1, 2, 3, 4, 5

-- name: recount_one
-- The same for the events of one user in one window.
SELECT user_id, event_type, revision, floor(extract(epoch FROM event_time) / 900)::bigint AS win,
       coalesce(properties::text, '') AS seen, sum(units)::text, sum(events)::bigint
FROM events
WHERE user_id = %(user)s
  AND event_time >= 'epoch'::timestamptz + %(window)s * interval '15 minutes'
  AND event_time < 'epoch'::timestamptz + (%(window)s + 1) * interval '15 minutes'
  AND voided_at IS NULL
GROUP BY 1, 2, 3, 4, 5

-- name: recount_usage
-- The usage to compare them with.
SELECT user_id, meter, (extract(epoch FROM window_start) / 900)::bigint, dimensions::text, units::text, events
FROM usage WHERE shard = %(shard)s AND window_start >= %(start)s AND window_start < %(end)s
  AND user_id NOT IN (SELECT token FROM erased_users)

-- name: proof_values
-- How many rows of usage differ from the values of their events, of the meters that keep them, and examples.
SELECT count(*), (array_agg(user_id || '/' || meter ORDER BY user_id, meter))[1:5]
FROM (
    SELECT user_id, meter, dimensions, date_bin('15 minutes', event_time, 'epoch') AS window_start,
           sum(value) AS units, count(*) AS events
    FROM usage_values GROUP BY 1, 2, 3, 4
) AS kept
FULL JOIN (
    SELECT usage.user_id, usage.meter, usage.dimensions, usage.window_start, usage.units, usage.events
    FROM usage JOIN meters ON meters.name = usage.meter
    WHERE usage.events > 0 AND (meters.detailed OR meters.aggregation NOT IN ('sum', 'count', 'avg'))
) AS counted USING (user_id, meter, dimensions, window_start)
WHERE (kept.units, kept.events) IS DISTINCT FROM (counted.units, counted.events)

-- name: open_discrepancies
-- Discrepancies that wait for a recount, and whether their events are dropped: usage agreed with them then, and
-- nothing of that month can count any more (rule 15).
SELECT discrepancy, user_id, meter, (extract(epoch FROM window_start) / 900)::bigint, dimensions::text,
       date_trunc('month', window_start, 'UTC') IN (SELECT month FROM dropped_events WHERE dropped_at IS NOT NULL)
FROM discrepancies WHERE resolved_at IS NULL ORDER BY discrepancy LIMIT 1000

-- name: resolve_discrepancy
-- Usage recounted from events agrees: events win (rule 9).
UPDATE discrepancies SET resolved_at = now() WHERE discrepancy = %s
