-- name: chaos_events
-- How often every numbered event of a run was counted, and with how many units.
SELECT properties ->> 'n', sum(events)::bigint, sum(units)::text
FROM event_list WHERE user_id = ANY(%s)
GROUP BY 1

-- name: chaos_usage
-- The usage of the users of a run by meter and hour.
SELECT customer, meter, window_start, sum(units)::text, sum(events)::bigint
FROM usage_by_hour WHERE customer = ANY(%s)
GROUP BY 1, 2, 3

-- name: chaos_taken
-- How many events are counted so far.
SELECT coalesce(sum(inserted_events), 0)::bigint FROM positions

-- name: chaos_session
-- A session that only looks: it waits for nobody for long.
SELECT set_config('statement_timeout', '3s', false)
