-- name: copy_values
-- What events are to the meters that keep it, as `rows.copied_values` writes it.
COPY usage_values (user_id, meter, dimensions, value, label, event_time, event_key) FROM STDIN (FORMAT BINARY)

-- name: delete_values
-- Take out what some events are to the meters that keep it, whatever meters these are.
DELETE FROM usage_values AS gone
USING unnest(%(users)s::text[], %(times_us)s::bigint[], %(keys)s::bytea[]) AS event (user_id, time_us, event_key)
CROSS JOIN meters
CROSS JOIN LATERAL value_groups(event.user_id, meters.name) AS one (dimensions)
WHERE gone.user_id = event.user_id AND gone.meter = meters.name AND gone.dimensions = one.dimensions
  AND gone.event_time = 'epoch'::timestamptz + event.time_us * interval '1 microsecond'
  AND gone.event_key = event.event_key
