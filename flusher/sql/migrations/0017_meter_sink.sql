-- Usage that is sent to Stripe's Billing Meters, of ledgers that don't invoice through Stripe.

ALTER TABLE stripe_binding
    -- What this ledger sends to Stripe. One of both, for ever: what is metered there is invoiced there.
    ADD COLUMN sink         text NOT NULL DEFAULT 'invoices' CHECK (sink IN ('invoices', 'meters')),
    -- The first hour whose usage is sent.
    ADD COLUMN meters_since timestamptz CHECK (meters_since = date_trunc('hour', meters_since, 'UTC')),
    ADD CHECK ((sink = 'meters') = (meters_since IS NOT NULL));

CREATE TABLE metered_hours (
    -- Taken so far (rule 16): what of an hour's usage is in events, or carried. Written in the transaction that reads
    -- the usage, so usage now minus this is what is to be sent.
    customer        text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    meter           text        NOT NULL CHECK (octet_length(meter) BETWEEN 1 AND 256),
    hour            timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    units           numeric     NOT NULL,
    PRIMARY KEY (customer, meter, hour)
);

CREATE TABLE metered_carries (
    -- What was taken and is in no event: less than a unit, or below zero. And how many events there were.
    customer        text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    meter           text        NOT NULL CHECK (octet_length(meter) BETWEEN 1 AND 256),
    units           numeric     NOT NULL,
    events          bigint      NOT NULL CHECK (events >= 0),
    PRIMARY KEY (customer, meter)
);

CREATE TABLE metered_events (
    -- Meter events: what they say is committed before the first call, and stays.
    identifier      text        PRIMARY KEY CHECK (length(identifier) BETWEEN 8 AND 100),
    customer        text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    meter           text        NOT NULL CHECK (octet_length(meter) BETWEEN 1 AND 256),
    hour            timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    units           numeric     NOT NULL CHECK (units > 0 AND units = trunc(units)),
    -- `returned` is an operator's decision: its units are carried again.
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'parked', 'returned')),
    reason          text        CHECK (length(reason) BETWEEN 1 AND 64),
    detail          text        CHECK (length(detail) <= 2000),
    -- Set before the first call; without `tried_at` it is certain that Stripe does not have it.
    event_name      text        CHECK (length(event_name) BETWEEN 1 AND 256),
    stripe_customer text        CHECK (length(stripe_customer) BETWEEN 1 AND 256),
    tried_at        timestamptz,
    made_at         timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    FOREIGN KEY (customer, meter) REFERENCES metered_carries ON UPDATE CASCADE,
    CHECK (state <> 'parked' OR reason IS NOT NULL),
    CHECK (tried_at IS NULL OR event_name IS NOT NULL AND stripe_customer IS NOT NULL),
    CHECK ((state IN ('sent', 'returned')) = (ended_at IS NOT NULL))
);
CREATE INDEX metered_events_open ON metered_events (hour, identifier) WHERE state IN ('pending', 'parked');
CREATE INDEX metered_events_at_stripe ON metered_events (stripe_customer, event_name, hour);
