-- What delivery to Stripe remembers beside its intents.

-- Steps are named by the program that takes them.
ALTER TABLE stripe_intents
    DROP CONSTRAINT stripe_intents_step_check,
    ADD CONSTRAINT stripe_intents_step_check CHECK (step ~ '^[a-z][a-z_]{0,31}$');

CREATE TABLE stripe_customers (
    -- Customers that are made at Stripe by us, because the catalog names none that exists there.
    customer        text        PRIMARY KEY CHECK (octet_length(customer) BETWEEN 1 AND 256),
    -- The invoice that asked first: the intent of the call is kept with it, however many ask.
    invoice         text        NOT NULL REFERENCES invoices,
    asked_at        timestamptz NOT NULL DEFAULT now(),
    -- Null while it is not known whether it was made.
    stripe_customer text        UNIQUE CHECK (length(stripe_customer) BETWEEN 1 AND 255)
);
