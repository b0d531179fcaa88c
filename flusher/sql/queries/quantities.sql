-- name: list_aggregations
-- How the meters of these names aggregate; one without a row is the sum of units.
SELECT name, aggregation FROM meters WHERE name = ANY(%(meters)s)

-- name: read_sums
-- Sums and counts, for each number over all of its rows: by group, or whatever the group. Starts and ends are those of
-- windows.
SELECT wanted.number, CASE WHEN wanted.per_group THEN found.dimensions ELSE '{}' END AS dimensions, sum(found.units) AS units, sum(found.events)::bigint AS events
FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
            %(ends)s::timestamptz[], %(per_group)s::boolean[])
     AS wanted (number, user_id, meter, starts, ends, per_group)
CROSS JOIN LATERAL (
    SELECT dimensions, sum(units) AS units, sum(events) AS events
    FROM usage
    WHERE user_id = wanted.user_id AND meter = wanted.meter
      AND window_start >= wanted.starts AND window_start < wanted.ends
    GROUP BY dimensions
) AS found
GROUP BY 1, 2

-- name: find_cut_windows
-- Those of the rows in whose window anything was counted, by their place, from 1: the others need not be read.
SELECT wanted.place
FROM unnest(%(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[])
     WITH ORDINALITY AS wanted (user_id, meter, starts, place)
WHERE EXISTS (
    SELECT FROM usage
    WHERE user_id = wanted.user_id AND meter = wanted.meter
      AND window_start = date_bin('15 minutes', wanted.starts, 'epoch')
)

-- name: list_cut_events
-- Single events of a user in a part of a window, and the summed rows of that window: they lie at its start. Of a month
-- that is dropped events are kept apart (rule 15); while it is on the way there an event is in both places, and read
-- once.
SELECT event_time, event_key, revision, event_type, units::text AS units, properties::text AS properties, events
FROM events
WHERE event_time >= date_bin('15 minutes', %(start)s, 'epoch') AND event_time < %(end)s AND user_id = %(user)s
  AND (event_time >= %(start)s OR events > 1) AND voided_at IS NULL
UNION
SELECT event_time, event_key, revision, event_type, units::text, properties::text, events
FROM boundary_events
WHERE event_time >= date_bin('15 minutes', %(start)s, 'epoch') AND event_time < %(end)s AND user_id = %(user)s
  AND (event_time >= %(start)s OR events > 1)

-- name: read_meters_of_revisions
-- The meters as they were, by revision.
SELECT revision, meters::text AS meters FROM revisions WHERE revision = ANY(%(revisions)s)

-- name: read_extremes
-- The least and the greatest value, for each number over all of its rows: by group, or whatever the group.
SELECT wanted.number, CASE WHEN wanted.per_group THEN one.dimensions ELSE '{}' END AS dimensions,
       min(found.least) AS least, max(found.greatest) AS greatest, sum(found.events)::bigint AS events
FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
            %(ends)s::timestamptz[], %(per_group)s::boolean[])
     AS wanted (number, user_id, meter, starts, ends, per_group)
CROSS JOIN LATERAL value_groups(wanted.user_id, wanted.meter) AS one (dimensions)
CROSS JOIN LATERAL (
    SELECT min(value) AS least, max(value) AS greatest, count(*) AS events
    FROM usage_values
    WHERE user_id = wanted.user_id AND meter = wanted.meter AND dimensions = one.dimensions
      AND event_time >= wanted.starts AND event_time < wanted.ends
    HAVING count(*) > 0
) AS found
GROUP BY 1, 2

-- name: read_uniques
-- How many different values there are, for each number over all of its rows: by group, or whatever the group.
SELECT wanted.number, CASE WHEN wanted.per_group THEN one.dimensions ELSE '{}' END AS dimensions,
       count(DISTINCT found.label) AS labels, sum(found.events)::bigint AS events
FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
            %(ends)s::timestamptz[], %(per_group)s::boolean[])
     AS wanted (number, user_id, meter, starts, ends, per_group)
CROSS JOIN LATERAL value_groups(wanted.user_id, wanted.meter) AS one (dimensions)
CROSS JOIN LATERAL (
    SELECT label, count(*) AS events
    FROM usage_values
    WHERE user_id = wanted.user_id AND meter = wanted.meter AND dimensions = one.dimensions
      AND event_time >= wanted.starts AND event_time < wanted.ends
    GROUP BY label
) AS found
GROUP BY 1, 2

-- name: read_latest
-- The last value of each user and group, added up for each number over all of its rows: by group, or whatever the group.
SELECT wanted.number, CASE WHEN wanted.per_group THEN one.dimensions ELSE '{}' END AS dimensions,
       sum(found.value) AS units, sum(found.events)::bigint AS events
FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
            %(ends)s::timestamptz[], %(per_group)s::boolean[])
     AS wanted (number, user_id, meter, starts, ends, per_group)
CROSS JOIN LATERAL value_groups(wanted.user_id, wanted.meter) AS one (dimensions)
CROSS JOIN LATERAL (
    SELECT value, count(*) OVER () AS events
    FROM usage_values
    WHERE user_id = wanted.user_id AND meter = wanted.meter AND dimensions = one.dimensions
      AND event_time >= wanted.starts AND event_time < wanted.ends
    ORDER BY event_time DESC, event_key DESC
    LIMIT 1
) AS found
GROUP BY 1, 2

-- name: read_levels
-- Level times seconds, added up for each number over all of its rows: by group, or whatever the group. Each event sets
-- the level of its user and group until the next one; the level at the start is that of the last event before.
SELECT wanted.number, CASE WHEN wanted.per_group THEN one.dimensions ELSE '{}' END AS dimensions,
       sum(found.area) AS area, sum(found.events)::bigint AS events
FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
            %(ends)s::timestamptz[], %(per_group)s::boolean[])
     AS wanted (number, user_id, meter, starts, ends, per_group)
CROSS JOIN LATERAL value_groups(wanted.user_id, wanted.meter) AS one (dimensions)
CROSS JOIN LATERAL (
    SELECT sum(value * extract(epoch FROM until - since)) AS area, count(*) FILTER (WHERE inside) AS events
    FROM (
        SELECT value, inside, since,
               lead(since, 1, wanted.ends) OVER (ORDER BY since, inside, event_key) AS until
        FROM (
            (
                SELECT value, false AS inside, wanted.starts AS since, event_key
                FROM usage_values
                WHERE user_id = wanted.user_id AND meter = wanted.meter AND dimensions = one.dimensions
                  AND event_time < wanted.starts
                ORDER BY event_time DESC, event_key DESC
                LIMIT 1
            )
            UNION ALL
            SELECT value, true, event_time, event_key
            FROM usage_values
            WHERE user_id = wanted.user_id AND meter = wanted.meter AND dimensions = one.dimensions
              AND event_time >= wanted.starts AND event_time < wanted.ends
        ) AS levels
    ) AS spans
    HAVING count(*) > 0
) AS found
GROUP BY 1, 2

-- name: read_runs
-- Values and how many events have each, for each number over all of its rows: by group, or whatever the group. The
-- first `free` events of it, by time and key, are apart and come first.
SELECT number, dimensions, value, count(*) AS events
FROM (
    SELECT wanted.number, place.dimensions, found.value,
           row_number() OVER (
               PARTITION BY wanted.number, place.dimensions ORDER BY found.event_time, found.event_key
           ) <= wanted.free AS is_free
    FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
                %(ends)s::timestamptz[], %(per_group)s::boolean[], %(free)s::bigint[])
         AS wanted (number, user_id, meter, starts, ends, per_group, free)
    CROSS JOIN LATERAL value_groups(wanted.user_id, wanted.meter) AS one (dimensions)
    CROSS JOIN LATERAL (SELECT CASE WHEN wanted.per_group THEN one.dimensions ELSE '{}' END AS dimensions) AS place
    CROSS JOIN LATERAL (
        SELECT value, event_time, event_key
        FROM usage_values
        WHERE user_id = wanted.user_id AND meter = wanted.meter AND dimensions = one.dimensions
          AND event_time >= wanted.starts AND event_time < wanted.ends
        OFFSET 0
    ) AS found
) AS ranked
GROUP BY number, dimensions, is_free, value
ORDER BY number, dimensions, is_free DESC, value
