-- Invoices: what was billed, from what, and how far each has come on its way to Stripe.
-- Amounts are NUMERIC in major units of the invoice's currency, rounded when the lines were rated.

CREATE TABLE invoices (
    -- The id is made from the other columns of the unique key and the ledger's id: see flusher/invoicing/invoice.py.
    id              text        PRIMARY KEY CHECK (length(id) BETWEEN 8 AND 64),
    subscription    text        NOT NULL REFERENCES subscriptions,
    kind            text        NOT NULL CHECK (kind IN ('opening', 'period', 'adjustment')),
    sequence        integer     NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    customer        text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    plan            text        NOT NULL,
    plan_version    integer     NOT NULL,
    currency        text        NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    total           numeric     NOT NULL CHECK (total > -1e30 AND total < 1e30),
    status          text        NOT NULL CHECK (status IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
    delivery        text        NOT NULL CHECK (delivery IN ('none', 'pending', 'sent', 'parked')),
    -- How far delivery has come: written before and after each call to Stripe.
    point           text        NOT NULL DEFAULT 'draft'
                    CHECK (point IN ('draft', 'creating', 'created', 'items', 'finalizing', 'finalized')),
    reason          text        CHECK (length(reason) BETWEEN 1 AND 64),
    detail          text        CHECK (length(detail) <= 2000),
    stripe_invoice  text        UNIQUE CHECK (length(stripe_invoice) BETWEEN 1 AND 255),
    -- Producers that had not passed the period's end when the finalization window did (design 2.5).
    closed_without  text[]      NOT NULL DEFAULT '{}',
    made_at         timestamptz NOT NULL DEFAULT now(),
    finalized_at    timestamptz,
    -- One invoice of a kind for a subscription and a period, however many runs there are.
    UNIQUE (subscription, kind, period_start, sequence),
    FOREIGN KEY (plan, plan_version) REFERENCES plan_versions,
    CHECK (CASE kind WHEN 'opening' THEN period_end = period_start ELSE period_end > period_start END),
    CHECK (delivery <> 'parked' OR reason IS NOT NULL),
    CHECK ((delivery = 'sent') = (point = 'finalized')),
    CHECK (point IN ('draft', 'creating') OR stripe_invoice IS NOT NULL)
);
CREATE INDEX invoices_customer ON invoices (customer, period_start);
CREATE INDEX invoices_made_at ON invoices (made_at, id);
CREATE INDEX invoices_undelivered ON invoices (period_end, id) WHERE delivery IN ('pending', 'parked');

CREATE TABLE invoice_line_records (
    -- Written with their invoice and never changed.
    id              text        PRIMARY KEY CHECK (length(id) BETWEEN 8 AND 64),
    invoice         text        NOT NULL REFERENCES invoices,
    place           integer     NOT NULL CHECK (place >= 0),
    kind            text        NOT NULL CHECK (
                        kind IN ('usage', 'fixed', 'minimum', 'maximum', 'adjustment', 'discount', 'credit')
                    ),
    price           text        NOT NULL CHECK (octet_length(price) BETWEEN 1 AND 256),
    meter           text        CHECK (octet_length(meter) BETWEEN 1 AND 256),
    dimensions      jsonb       CHECK (jsonb_typeof(dimensions) = 'object'),
    tier            integer     CHECK (tier > 0),
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL CHECK (period_end >= period_start),
    description     text        NOT NULL CHECK (length(description) BETWEEN 1 AND 20000),
    quantity        numeric     NOT NULL,
    unit_price      numeric,
    amount          numeric     NOT NULL CHECK (amount > -1e30 AND amount < 1e30),
    UNIQUE (invoice, place)
);

CREATE TABLE billed (
    -- Billed so far (rule 16), by price and period: what the meter showed and what its lines add up to. Written in the
    -- transaction that reads the usage, so usage now minus this is what an adjustment bills.
    subscription    text        NOT NULL REFERENCES subscriptions,
    period_start    timestamptz NOT NULL,
    price           text        NOT NULL CHECK (octet_length(price) BETWEEN 1 AND 256),
    period_end      timestamptz NOT NULL CHECK (period_end > period_start),
    meter           text        NOT NULL,
    plan            text        NOT NULL,
    plan_version    integer     NOT NULL,
    quantity        numeric     NOT NULL,
    events          bigint      NOT NULL CHECK (events >= 0),
    amount          numeric     NOT NULL,
    -- The invoice that billed last.
    invoice         text        NOT NULL REFERENCES invoices,
    PRIMARY KEY (subscription, period_start, price),
    FOREIGN KEY (plan, plan_version) REFERENCES plan_versions
);

CREATE TABLE stripe_intents (
    -- Every call that changes something at Stripe: its key and its parameters are committed before it is made.
    -- An attempt ends by success or by an answer that can't be repeated; the next one has a key of its own.
    invoice         text        NOT NULL REFERENCES invoices,
    step            text        NOT NULL CHECK (step IN ('create_invoice', 'create_item', 'finalize_invoice')),
    -- The line that an item is made for, else empty.
    line            text        NOT NULL DEFAULT '' CHECK (length(line) <= 64),
    attempt         integer     NOT NULL CHECK (attempt > 0),
    idempotency_key text        NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    params          jsonb       NOT NULL CHECK (jsonb_typeof(params) = 'object'),
    created_at      timestamptz NOT NULL DEFAULT now(),
    outcome         text        CHECK (outcome IN ('done', 'refused', 'lost')),
    -- The id that Stripe gave to what was made.
    object          text        CHECK (length(object) BETWEEN 1 AND 255),
    error           text        CHECK (length(error) <= 2000),
    ended_at        timestamptz,
    PRIMARY KEY (invoice, step, line, attempt),
    CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CHECK (outcome IS DISTINCT FROM 'done' OR object IS NOT NULL)
);
CREATE UNIQUE INDEX stripe_intents_one_at_a_time ON stripe_intents (invoice, step, line) WHERE outcome IS NULL;

CREATE TABLE stripe_binding (
    -- The one Stripe account and mode that this ledger bills in; made by the first push, never changed.
    one_row         boolean     PRIMARY KEY DEFAULT true CHECK (one_row),
    account         text        NOT NULL CHECK (length(account) BETWEEN 1 AND 255),
    livemode        boolean     NOT NULL,
    bound_at        timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: what was billed is never changed, bill the difference', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER invoice_line_records_stay BEFORE UPDATE OR DELETE ON invoice_line_records
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoices_stay BEFORE DELETE ON invoices
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoices_keep_what_they_bill
    BEFORE UPDATE OF id, subscription, kind, sequence, customer, plan, plan_version, currency, period_start, period_end,
        total
    ON invoices FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE VIEW invoice_list AS
    SELECT id, customer, currency, period_start, period_end, status, total, stripe_invoice,
           subscription, plan, plan_version, kind, delivery, reason, made_at, finalized_at
    FROM invoices;

CREATE VIEW invoice_lines AS
    SELECT invoice, place, id, kind, price, meter, dimensions, tier, period_start, period_end, description, quantity,
           unit_price, amount
    FROM invoice_line_records;
