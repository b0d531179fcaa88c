-- What comes back from Stripe, and what is corrected once an invoice is final.

CREATE TABLE stripe_events (
    -- Events of Stripe's webhooks that took effect, so that each does once; kept for longer than they are sent again.
    id              text        PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    type            text        NOT NULL CHECK (length(type) BETWEEN 1 AND 255),
    received_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_events_received ON stripe_events (received_at);

CREATE TABLE credit_notes (
    -- What is taken off a final invoice. Stripe has no drafts of them, so they are here until an operator confirms.
    id              text        PRIMARY KEY CHECK (length(id) BETWEEN 8 AND 64),
    invoice         text        NOT NULL REFERENCES invoices,
    -- The line that it is for, and how much of its quantity; null for the invoice as a whole.
    line            text        REFERENCES invoice_line_records,
    quantity        numeric     CHECK (quantity > 0),
    amount          numeric     NOT NULL CHECK (amount > 0 AND amount < 1e30),
    reason          text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    -- What becomes of the part that was paid already.
    paid_as         text        NOT NULL CHECK (paid_as IN ('balance', 'refund', 'outside')),
    -- confirming: it may exist at Stripe.
    status          text        NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'confirming', 'issued', 'discarded')),
    -- Why Stripe refused it last.
    problem         text        CHECK (length(problem) <= 2000),
    stripe_credit_note text     UNIQUE CHECK (length(stripe_credit_note) BETWEEN 1 AND 255),
    made_at         timestamptz NOT NULL DEFAULT now(),
    decided_at      timestamptz,
    CHECK (quantity IS NULL OR line IS NOT NULL),
    CHECK ((decided_at IS NOT NULL) = (status IN ('issued', 'discarded')))
);
CREATE INDEX credit_notes_invoice ON credit_notes (invoice);
CREATE INDEX credit_notes_made_at ON credit_notes (made_at, id);
CREATE TRIGGER credit_notes_stay BEFORE DELETE ON credit_notes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_notes_keep_what_they_credit BEFORE UPDATE OF id, invoice, line, quantity, amount, paid_as
    ON credit_notes FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE invoice_voids (
    -- Why an invoice was voided, and whether what it billed is billed again.
    invoice         text        PRIMARY KEY REFERENCES invoices,
    reason          text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    asked_at        timestamptz NOT NULL DEFAULT now(),
    rebilled_at     timestamptz
);

CREATE VIEW credit_note_list AS
    SELECT credit_notes.id, invoice, customer, currency, amount, line, quantity, credit_notes.reason,
           credit_notes.status, stripe_credit_note, credit_notes.made_at, decided_at
    FROM credit_notes JOIN invoices ON invoices.id = credit_notes.invoice;
