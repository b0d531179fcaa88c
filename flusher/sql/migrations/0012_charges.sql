-- What a period costs is a set of charges, and each is remembered as it was billed: whatever changes it later (late
-- usage, voided events, a change of plan, a threshold) is billed as the difference (rule 16).

CREATE TABLE terms (
    -- A plan as a subscription had it, overrides included: what an invoice was rated by, and is adjusted by for ever.
    terms           text        PRIMARY KEY CHECK (length(terms) = 32),
    definition      jsonb       NOT NULL
);

ALTER TABLE invoices DROP CONSTRAINT invoices_kind_check;
ALTER TABLE invoices
    ADD CONSTRAINT invoices_kind_check CHECK (kind IN ('opening', 'period', 'threshold', 'adjustment')),
    ADD COLUMN terms  text REFERENCES terms,
    -- The zone whose calendar the period followed, and what anniversaries were counted from.
    ADD COLUMN zone   text NOT NULL DEFAULT 'UTC' CHECK (octet_length(zone) BETWEEN 1 AND 256),
    ADD COLUMN anchor timestamptz;

INSERT INTO terms
SELECT DISTINCT ON (md5(definition::text)) md5(definition::text), definition
FROM plan_versions JOIN invoices ON (invoices.plan, invoices.plan_version) = (plan_versions.plan, plan_versions.version);
UPDATE invoices SET terms = md5(definition::text), anchor = start_at
FROM plan_versions, subscriptions
WHERE (invoices.plan, invoices.plan_version) = (plan_versions.plan, plan_versions.version)
  AND subscriptions.id = invoices.subscription;
ALTER TABLE invoices ALTER COLUMN terms SET NOT NULL, ALTER COLUMN anchor SET NOT NULL;

-- How the amount came about, for whoever asks.
ALTER TABLE invoice_line_records
    ADD COLUMN working text NOT NULL DEFAULT '' CHECK (length(working) <= 2000);

ALTER TABLE billed
    -- The start of the period whose cost it is, and whether it is due before or after that period.
    ADD COLUMN cost_of timestamptz,
    ADD COLUMN part    text NOT NULL DEFAULT 'arrears' CHECK (part IN ('advance', 'arrears')),
    ADD COLUMN kind    text NOT NULL DEFAULT 'price'
        CHECK (kind IN ('price', 'minimum', 'maximum', 'commitment', 'discount')),
    ALTER COLUMN meter DROP NOT NULL;
UPDATE billed SET cost_of = period_start;
ALTER TABLE billed
    ALTER COLUMN cost_of SET NOT NULL,
    DROP CONSTRAINT billed_pkey,
    ADD PRIMARY KEY (subscription, cost_of, part, kind, price, period_start),
    DROP COLUMN plan,
    DROP COLUMN plan_version;
-- Fees were not remembered here so far: they are in the lines.
INSERT INTO billed
    (subscription, cost_of, part, price, period_start, period_end, quantity, events, amount, invoice)
SELECT invoices.subscription, line.period_start,
       CASE WHEN line.period_start >= invoices.period_end THEN 'advance' ELSE 'arrears' END,
       line.price, line.period_start, line.period_end, 0, 0, line.amount, invoices.id
FROM invoice_line_records AS line JOIN invoices ON invoices.id = line.invoice
WHERE line.kind = 'fixed';

-- When it was counted last, to tell what came too late to be billed by itself.
ALTER TABLE usage ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE late_releases (
    -- Usage that came too late to be billed by itself: an operator lets it be billed, with the next run.
    subscription    text        NOT NULL REFERENCES subscriptions,
    released_at     timestamptz NOT NULL DEFAULT now(),
    reason          text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    billed_at       timestamptz,
    PRIMARY KEY (subscription, released_at)
);

CREATE OR REPLACE VIEW invoice_lines AS
    SELECT invoice, place, id, kind, price, meter, dimensions, tier, period_start, period_end, description, quantity,
           unit_price, amount, working
    FROM invoice_line_records;

CREATE TABLE reratings (
    -- Terms that reach into closed periods, because somebody said so: those that begin since then are rated anew.
    subscription    text        NOT NULL REFERENCES subscriptions,
    since           timestamptz NOT NULL,
    reason          text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    made_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subscription, made_at)
);

CREATE TABLE small_amounts (
    -- What invoices came to and Stripe would not collect: due with the customer's next invoice in that currency.
    invoice         text        PRIMARY KEY REFERENCES invoices,
    customer        text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    currency        text        NOT NULL,
    amount          numeric     NOT NULL CHECK (amount > 0),
    billed_by       text        REFERENCES invoices
);
CREATE INDEX small_amounts_open ON small_amounts (customer, currency) WHERE billed_by IS NULL;
