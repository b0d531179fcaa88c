-- name: report_usage
-- Usage by customer, meter and dimensions over a range of whole windows, in parts of an hour, a day or a month where
-- `part` says so. Of some users alone where they are given.
SELECT customer COLLATE "C" AS customer, meter COLLATE "C" AS meter, dimensions, part_start, part_end, units, events
FROM usage_parts(%(part)s, %(start)s, %(end)s, %(users)s, %(meter)s)
ORDER BY part_start, customer, meter, dimensions
