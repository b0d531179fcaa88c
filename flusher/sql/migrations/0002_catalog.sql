-- The catalog: what is metered, what it costs, who pays. Written by `taximeter apply` alone, whole or not at all.
-- Entries are added and changed, never removed. Names are limited as flusher/catalog/reader.py limits them.

CREATE TABLE meters (
    -- The meters in force: the newest row of revisions, one meter a row.
    name          text        PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 256),
    event_type    text        NOT NULL CHECK (octet_length(event_type) BETWEEN 1 AND 256),
    aggregation   text        NOT NULL CHECK (aggregation IN ('sum', 'count')),
    field         text        NOT NULL CHECK (field = 'units' OR field LIKE 'properties._%'),
    group_by      jsonb       NOT NULL CHECK (jsonb_typeof(group_by) = 'array'),
    filter        jsonb       NOT NULL CHECK (jsonb_typeof(filter) = 'object'),
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE plans (
    name          text        PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 256),
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE plan_versions (
    -- A plan as it was applied: a period uses the last version with effective_at at or before its start, or the
    -- first. `definition` is the table of the catalog file, normalised; it is never changed.
    plan          text        NOT NULL REFERENCES plans,
    version       integer     NOT NULL CHECK (version > 0),
    effective_at  timestamptz NOT NULL,
    definition    jsonb       NOT NULL CHECK (jsonb_typeof(definition) = 'object'),
    PRIMARY KEY (plan, version)
);

CREATE TABLE customers (
    -- Customers with an entry. A user without one, and a customer of a subscription without one, is its own.
    id              text        PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 256),
    stripe_customer text        NOT NULL CHECK (octet_length(stripe_customer) BETWEEN 1 AND 256),
    time_zone       text        NOT NULL CHECK (octet_length(time_zone) BETWEEN 1 AND 256),
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE customer_users (
    -- Whose usage is whose: a user has one customer. The customer of any user is coalesce(customer, user_id).
    user_id       text        PRIMARY KEY CHECK (octet_length(user_id) BETWEEN 1 AND 256),
    customer      text        NOT NULL REFERENCES customers,
    place         integer     NOT NULL CHECK (place >= 0),
    UNIQUE (customer, place)
);

CREATE TABLE subscriptions (
    -- A customer on a plan from start_at until end_at (null: open), half-open.
    id            text        PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 513),
    customer      text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    plan          text        NOT NULL REFERENCES plans,
    start_at      timestamptz NOT NULL CHECK (start_at >= '1970-01-01Z' AND start_at < '2200-01-01Z'),
    end_at        timestamptz CHECK (end_at < '2200-01-01Z'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (end_at > start_at)
);
CREATE INDEX subscriptions_customer ON subscriptions (customer);
CREATE INDEX subscriptions_plan ON subscriptions (plan);
