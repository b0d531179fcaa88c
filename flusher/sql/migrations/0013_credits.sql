-- Prepaid credits: what a customer has, and which invoice drew how much of it.
-- Amounts are NUMERIC in major units of the grant's currency.

CREATE TABLE credit_grants (
    -- amount = remaining + voided + the sum of its draws. The id is the caller's, so that a repeat grants nothing.
    id              text        PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 256),
    customer        text        NOT NULL CHECK (octet_length(customer) BETWEEN 1 AND 256),
    currency        text        NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    name            text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 256),
    -- prepaid: an operator granted it; plan: it comes with a plan; carried: a negative total of an invoice.
    kind            text        NOT NULL CHECK (kind IN ('prepaid', 'plan', 'carried')),
    amount          numeric     NOT NULL CHECK (amount > 0 AND amount < 1e30),
    remaining       numeric     NOT NULL CHECK (remaining >= 0),
    voided          numeric     NOT NULL DEFAULT 0 CHECK (voided >= 0),
    -- The lowest is drawn first.
    priority        integer     NOT NULL CHECK (priority >= 0),
    -- What was paid for a major unit of it.
    cost_basis      numeric     NOT NULL CHECK (cost_basis >= 0 AND cost_basis < 1e30),
    effective_at    timestamptz NOT NULL,
    expires_at      timestamptz,
    granted_at      timestamptz NOT NULL,
    voided_at       timestamptz,
    void_reason     text        CHECK (length(void_reason) <= 2000),
    CHECK (expires_at > effective_at),
    CHECK (remaining + voided <= amount),
    CHECK ((voided_at IS NULL) = (void_reason IS NULL))
);
CREATE INDEX credit_grants_customer ON credit_grants (customer, currency);

CREATE TABLE credit_draws (
    -- Written with their invoice and never changed.
    invoice         text        NOT NULL REFERENCES invoices,
    grant_id        text        NOT NULL REFERENCES credit_grants,
    amount          numeric     NOT NULL CHECK (amount > 0),
    PRIMARY KEY (invoice, grant_id)
);
CREATE INDEX credit_draws_grant ON credit_draws (grant_id);

CREATE TRIGGER credit_draws_stay BEFORE UPDATE OR DELETE ON credit_draws
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_grants_stay BEFORE DELETE ON credit_grants
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
