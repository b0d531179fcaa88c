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
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL CHECK (length(event_key) = 16),
    dimensions    jsonb       NOT NULL,
    -- What the event adds to the units of its row of usage, and for a count of different values the one it has.
    value         numeric     NOT NULL,
    label         text,
    PRIMARY KEY (user_id, meter, event_time, event_key)
);
-- The level that a group was at is found among its own events; those of a meter without groups are neighbours anyway.
CREATE INDEX usage_values_groups ON usage_values (user_id, meter, dimensions, event_time, event_key)
    WHERE dimensions <> '{}';
