-- What was counted, for people and their tools: a stable view over the tables that may change.

CREATE VIEW usage_by_hour AS
    -- Usage by customer and hour, UTC, as of the last drain. A user without an entry is its own customer.
    SELECT coalesce(customer_users.customer, usage.user_id) AS customer,
           usage.meter,
           usage.dimensions,
           date_trunc('hour', usage.window_start, 'UTC') AS window_start,
           sum(usage.units) AS units,
           sum(usage.events)::bigint AS events
    FROM usage LEFT JOIN customer_users USING (user_id)
    GROUP BY 1, 2, 3, 4;
