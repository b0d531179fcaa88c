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
