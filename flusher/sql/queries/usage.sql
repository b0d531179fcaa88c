-- name: report_usage
-- Usage by customer, meter and dimensions over a range of whole windows, in parts of an hour, a day or a month where
-- `part` says so; the first and the last part end where the range does. Of some users alone where they are given.
SELECT coalesce(customer_users.customer, usage.user_id) COLLATE "C" AS customer, usage.meter COLLATE "C" AS meter,
       usage.dimensions,
       CASE WHEN %(part)s::text IS NULL THEN %(start)s::timestamptz
            ELSE greatest(date_trunc(%(part)s, usage.window_start, 'UTC'), %(start)s) END AS part_start,
       CASE WHEN %(part)s::text IS NULL THEN %(end)s::timestamptz
            ELSE least(date_trunc(%(part)s, usage.window_start, 'UTC') + ('1 ' || %(part)s)::interval,
                       %(end)s) END AS part_end,
       sum(usage.units) AS units, sum(usage.events)::bigint AS events
FROM usage LEFT JOIN customer_users USING (user_id)
WHERE usage.shard IN (SELECT shard FROM shards)
  AND usage.window_start >= %(start)s AND usage.window_start < %(end)s
  AND (%(meter)s::text IS NULL OR usage.meter = %(meter)s)
  AND (%(users)s::text[] IS NULL OR usage.user_id = ANY(%(users)s))
GROUP BY 1, 2, 3, 4, 5
ORDER BY part_start, customer, meter, dimensions
