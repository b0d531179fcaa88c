-- The aggregations that sums and counts can't tell: the value of each event is kept.

ALTER TABLE meters DROP CONSTRAINT meters_aggregation_check;
ALTER TABLE meters ADD CONSTRAINT meters_aggregation_check
    CHECK (aggregation IN ('sum', 'count', 'max', 'min', 'avg', 'latest', 'unique', 'weighted_sum'));
-- Whether the value of each event is kept of a meter that could do without: a price per event needs it.
ALTER TABLE meters ADD COLUMN detailed boolean NOT NULL DEFAULT false;

CREATE TABLE usage_values (
    -- What single events are to the meters that keep it, written with the events. What such a meter shows over any
    -- range of time follows from the rows in it, in whatever order they came: a drain adds rows, nothing is merged.
    user_id       text        NOT NULL,
    meter         text        NOT NULL,
    dimensions    jsonb       NOT NULL,
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL CHECK (length(event_key) = 16),
    -- What the event adds to the units of its row of usage; for a count of different values also the one it has.
    value         numeric     NOT NULL,
    label         text,
    -- By groups first: the level that one was at is the row before a time, however long ago that was.
    PRIMARY KEY (user_id, meter, dimensions, event_time, event_key)
);

CREATE FUNCTION value_groups(of_user text, of_meter text) RETURNS SETOF jsonb
    -- The groups that a user's events of a meter are in: one look into the index for each, however many events it has.
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
    WITH RECURSIVE found (dimensions) AS (
        (
            SELECT dimensions FROM usage_values
            WHERE user_id = of_user AND meter = of_meter
            ORDER BY dimensions LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT usage_values.dimensions FROM usage_values
            WHERE user_id = of_user AND meter = of_meter AND usage_values.dimensions > found.dimensions
            ORDER BY usage_values.dimensions LIMIT 1
        )
        FROM found WHERE found.dimensions IS NOT NULL
    )
    SELECT dimensions FROM found WHERE dimensions IS NOT NULL;
END;

CREATE FUNCTION rounded_quotient(dividend numeric, divisor numeric) RETURNS numeric
    -- To 9 fractional digits, halves away from zero; exact, whatever the number of digits. The divisor is above 0.
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sign(dividend) * div(abs(dividend) * 2000000000 + divisor, divisor * 2) * 0.000000001;

CREATE FUNCTION usage_levels(part text, starts timestamptz, ends timestamptz, of_users text[], of_meters text[])
    RETURNS TABLE (
        user_id text, meter text, dimensions jsonb, part_start timestamptz, part_end timestamptz, value numeric,
        held_from timestamptz, held_to timestamptz, is_set boolean
    )
    -- The levels of each part of a range, and how long each was held in it; `is_set` where the event is in it. Levels
    -- hold until the next event of their user and group, also those from before the range, but no further than now.
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH RECURSIVE every (user_id) AS (
        (SELECT kept.user_id FROM usage_values AS kept WHERE of_users IS NULL ORDER BY kept.user_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT kept.user_id FROM usage_values AS kept
            WHERE kept.user_id > every.user_id
            ORDER BY kept.user_id LIMIT 1
        )
        FROM every WHERE every.user_id IS NOT NULL
    ), wanted AS (
        SELECT every.user_id FROM every WHERE every.user_id IS NOT NULL
        UNION ALL
        SELECT unnest(of_users)
    ), levels AS (
        SELECT wanted.user_id, meters.name AS meter, one.dimensions, found.value, found.at, found.inside,
               lead(found.at, 1, ends) OVER (
                   PARTITION BY wanted.user_id, meters.name, one.dimensions
                   ORDER BY found.at, found.inside, found.event_key
               ) AS until
        FROM wanted
        JOIN meters ON meters.aggregation = 'weighted_sum' AND (of_meters IS NULL OR meters.name = ANY(of_meters))
        CROSS JOIN LATERAL value_groups(wanted.user_id, meters.name) AS one (dimensions)
        CROSS JOIN LATERAL (
            (
                SELECT before.value, starts AS at, false AS inside, before.event_key
                FROM usage_values AS before
                WHERE before.user_id = wanted.user_id AND before.meter = meters.name
                  AND before.dimensions = one.dimensions AND before.event_time < starts
                ORDER BY before.event_time DESC, before.event_key DESC LIMIT 1
            )
            UNION ALL
            SELECT later.value, later.event_time, true, later.event_key
            FROM usage_values AS later
            WHERE later.user_id = wanted.user_id AND later.meter = meters.name
              AND later.dimensions = one.dimensions AND later.event_time >= starts AND later.event_time < ends
        ) AS found
    )
    SELECT levels.user_id, levels.meter, levels.dimensions, bounds.part_start, bounds.part_end, levels.value,
           greatest(levels.at, bounds.part_start), least(levels.until, bounds.part_end),
           levels.inside AND levels.at >= bounds.part_start
    FROM levels
    CROSS JOIN LATERAL (
        SELECT starts AS part_start, ends AS part_end WHERE part IS NULL
        UNION ALL
        SELECT greatest(begun, starts), least(begun + ('1 ' || part)::interval, ends)
        FROM generate_series(
            date_trunc(part, levels.at, 'UTC'),
            greatest(levels.at, least(levels.until, now()) - interval '1 microsecond'),
            ('1 ' || part)::interval
        ) AS begun
    ) AS bounds;
END;

CREATE FUNCTION usage_parts(part text, starts timestamptz, ends timestamptz, of_users text[], of_meters text[])
    RETURNS TABLE (
        customer text, meter text, dimensions jsonb, part_start timestamptz, part_end timestamptz, units numeric,
        events bigint
    )
    -- What meters show in each hour, day or month, UTC, of a range of whole windows, or in all of it where `part` is
    -- null; the first and the last part end where the range does. Of some users and meters where they are given.
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH counted AS (
        SELECT usage.user_id, usage.meter, usage.dimensions, coalesce(meters.aggregation, 'sum') AS aggregation,
               CASE WHEN part IS NULL THEN starts
                    ELSE greatest(date_trunc(part, usage.window_start, 'UTC'), starts) END AS part_start,
               CASE WHEN part IS NULL THEN ends
                    ELSE least(date_trunc(part, usage.window_start, 'UTC') + ('1 ' || part)::interval, ends)
               END AS part_end,
               sum(usage.units) AS units, sum(usage.events) AS events
        FROM usage LEFT JOIN meters ON meters.name = usage.meter
        WHERE usage.shard IN (SELECT shard FROM shards)
          AND usage.window_start >= starts AND usage.window_start < ends
          AND (of_meters IS NULL OR usage.meter = ANY(of_meters))
          AND (of_users IS NULL OR usage.user_id = ANY(of_users))
        GROUP BY 1, 2, 3, 4, 5, 6
        HAVING sum(usage.events) > 0
    ), shown AS (
        SELECT counted.user_id, counted.meter, counted.dimensions, counted.aggregation, counted.part_start,
               counted.part_end, counted.units, counted.events
        FROM counted WHERE counted.aggregation IN ('sum', 'count', 'avg')
        UNION ALL
        SELECT counted.user_id, counted.meter, counted.dimensions, counted.aggregation, counted.part_start,
               counted.part_end, found.units, counted.events
        FROM counted CROSS JOIN LATERAL (
            SELECT CASE counted.aggregation
                       WHEN 'max' THEN max(one.value)
                       WHEN 'min' THEN min(one.value)
                       ELSE (array_agg(one.value ORDER BY one.event_time DESC, one.event_key DESC))[1]
                   END AS units
            FROM usage_values AS one
            WHERE one.user_id = counted.user_id AND one.meter = counted.meter
              AND one.dimensions = counted.dimensions
              AND one.event_time >= counted.part_start AND one.event_time < counted.part_end
        ) AS found
        WHERE counted.aggregation IN ('max', 'min', 'latest')
    )
    SELECT coalesce(customer_users.customer, shown.user_id), shown.meter, shown.dimensions, shown.part_start,
           shown.part_end,
           CASE shown.aggregation
               WHEN 'avg' THEN rounded_quotient(sum(shown.units), sum(shown.events))
               WHEN 'max' THEN max(shown.units)
               WHEN 'min' THEN min(shown.units)
               ELSE sum(shown.units) END,
           sum(shown.events)::bigint
    FROM shown LEFT JOIN customer_users ON customer_users.user_id = shown.user_id
    GROUP BY 1, shown.meter, shown.dimensions, shown.part_start, shown.part_end, shown.aggregation
    UNION ALL
    SELECT coalesce(customer_users.customer, counted.user_id), counted.meter, counted.dimensions, counted.part_start,
           counted.part_end, count(DISTINCT one.label), count(*)
    FROM counted
    JOIN usage_values AS one
      ON one.user_id = counted.user_id AND one.meter = counted.meter AND one.dimensions = counted.dimensions
     AND one.event_time >= counted.part_start AND one.event_time < counted.part_end
    LEFT JOIN customer_users ON customer_users.user_id = counted.user_id
    WHERE counted.aggregation = 'unique'
    GROUP BY 1, counted.meter, counted.dimensions, counted.part_start, counted.part_end
    UNION ALL
    SELECT coalesce(customer_users.customer, level.user_id), level.meter, level.dimensions, level.part_start,
           level.part_end,
           rounded_quotient(sum(level.value * extract(epoch FROM level.held_to - level.held_from)),
                            extract(epoch FROM level.part_end - level.part_start)),
           count(*) FILTER (WHERE level.is_set)
    FROM usage_levels(part, starts, ends, of_users, of_meters) AS level
    LEFT JOIN customer_users ON customer_users.user_id = level.user_id
    GROUP BY 1, level.meter, level.dimensions, level.part_start, level.part_end
    HAVING bool_or(level.is_set) OR sum(level.value * extract(epoch FROM level.held_to - level.held_from)) <> 0;
END;

CREATE OR REPLACE VIEW usage_by_hour AS
    -- Usage by customer and hour, UTC, as of the last drain. A user without an entry is its own customer. The level of
    -- a weighted_sum goes on in the hours without events, up to the one that is now.
    SELECT customer, meter, dimensions, part_start AS window_start, units, events
    FROM usage_parts('hour', '-infinity', 'infinity', NULL, NULL);
