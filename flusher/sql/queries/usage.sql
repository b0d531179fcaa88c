-- name: report_usage
-- Usage by customer, meter and dimensions over a range of whole windows, in parts of an hour, a day or a month where
-- `part` says so. Of some users and meters alone where they are given.
SELECT customer COLLATE "C" AS customer, meter COLLATE "C" AS meter, dimensions, part_start, part_end, units, events
FROM usage_parts(%(part)s, %(start)s, %(end)s, %(users)s, %(meters)s)
ORDER BY part_start, customer, meter, dimensions

-- name: list_valued_meters
-- The meters whose figures don't follow from sums and counts.
SELECT name FROM meters WHERE aggregation NOT IN ('sum', 'count', 'avg')

-- name: answer_soon
-- Nobody waits longer for an answer.
SELECT set_config('statement_timeout', '2s', false)
