-- name: list_undelivered
-- Ids of invoices that are on their way to Stripe or parked, the oldest period first.
SELECT id FROM invoices
WHERE delivery IN ('pending', 'parked') AND period_end <= coalesce(%(at)s, clock_timestamp())
  AND (%(customer)s::text IS NULL OR customer = %(customer)s)
ORDER BY period_end, id

-- name: wait_for_deliveries
-- How long this session waits for another run that delivers the same invoice.
SELECT set_config('lock_timeout', '60s', false)

-- name: lock_delivery
-- One run at a time delivers an invoice; released by `unlock_delivery` or when the connection ends. Correctness does not
-- hang on it, the idempotency keys see to that: it saves calls.
SELECT pg_advisory_lock(7386134, hashtext(%(invoice)s))

-- name: unlock_delivery
-- It was taken as far as it goes.
SELECT pg_advisory_unlock(7386134, hashtext(%(invoice)s))

-- name: move_invoice
-- Write a recovery point; no row when another run was there first.
UPDATE invoices
SET point = %(to)s, stripe_invoice = coalesce(%(stripe_invoice)s, stripe_invoice),
    delivery = 'pending', reason = NULL, detail = NULL
WHERE id = %(invoice)s AND point = %(from)s
RETURNING id

-- name: keep_invoice
-- Nothing is due, and it is not sent: it is paid.
UPDATE invoices
SET delivery = 'none', status = 'paid', reason = NULL, detail = NULL, finalized_at = now()
WHERE id = %(invoice)s AND point = 'draft'

-- name: restart_delivery
-- Its draft was deleted at Stripe: what was done there is undone, so that it is made anew.
WITH moved AS (
    UPDATE invoices SET point = 'creating', stripe_invoice = NULL
    WHERE id = %(invoice)s AND point IN ('created', 'items', 'finalizing')
    RETURNING id
)
UPDATE stripe_intents SET outcome = 'lost', error = 'its draft was deleted at Stripe', ended_at = clock_timestamp()
FROM moved
WHERE stripe_intents.invoice = moved.id AND step IN ('create_invoice', 'add_lines', 'finalize_invoice')

-- name: finish_invoice
-- Stripe has finalized it: its status is ours, nothing is left to do.
UPDATE invoices
SET point = 'finalized', delivery = 'sent', status = %(status)s, reason = NULL, detail = NULL, finalized_at = now()
WHERE id = %(invoice)s AND point = 'finalizing'
RETURNING id

-- name: hold_invoice
-- Park an invoice, or say why it waits. What was sent is never taken back.
UPDATE invoices SET delivery = %(delivery)s, reason = %(reason)s, detail = %(detail)s
WHERE id = %(invoice)s AND delivery <> 'sent'

-- name: find_intent
-- The latest attempt at a step of an invoice, with its age by Postgres's clock.
SELECT attempt, idempotency_key, params, outcome, object,
       extract(epoch FROM clock_timestamp() - created_at)::bigint AS age_s
FROM stripe_intents
WHERE invoice = %(invoice)s AND step = %(step)s AND line = %(line)s
ORDER BY attempt DESC LIMIT 1

-- name: add_intent
-- Commit to a call before it is made; no row when another run was there first.
INSERT INTO stripe_intents (invoice, step, line, attempt, idempotency_key, params)
VALUES (%(invoice)s, %(step)s, %(line)s, %(attempt)s, %(idempotency_key)s, %(params)s)
ON CONFLICT DO NOTHING

-- name: end_intent
-- Remember how an attempt ended.
UPDATE stripe_intents
SET outcome = %(outcome)s, object = %(object)s, error = %(error)s, ended_at = clock_timestamp()
WHERE invoice = %(invoice)s AND step = %(step)s AND line = %(line)s AND attempt = %(attempt)s AND outcome IS NULL

-- name: bind_stripe
-- Bind the ledger to an account and mode, unless it is bound; the binding in force is read by `find_binding`.
INSERT INTO stripe_binding (account, livemode) VALUES (%(account)s, %(livemode)s) ON CONFLICT DO NOTHING

-- name: find_binding
-- The account and mode that this ledger bills in.
SELECT account, livemode FROM stripe_binding

-- name: sum_invoices
-- How many some invoices are, and what they add up to, by currency.
SELECT currency, count(*) AS invoices, sum(total) AS total FROM invoices WHERE id = ANY(%(ids)s)
GROUP BY currency ORDER BY currency

-- name: list_deliveries
-- Where some invoices stand, in the order of the ids.
SELECT id, delivery FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS wanted (id, place)
JOIN invoices USING (id) ORDER BY wanted.place

-- name: list_customers_to_bill
-- Who some invoices that are not begun are for, each with one of them.
SELECT customer, min(id) AS invoice FROM invoices
WHERE id = ANY(%(ids)s) AND point = 'draft' AND delivery <> 'none' AND (total <> 0 OR %(send_zero)s)
GROUP BY customer ORDER BY customer

-- name: find_stripe_customers
-- What some customers are called at Stripe: as the catalog says, else as the one that was made there, else like here.
SELECT wanted.id AS customer,
       coalesce(nullif(customers.stripe_customer, wanted.id), made.stripe_customer, wanted.id) AS stripe_customer
FROM unnest(%(ids)s::text[]) AS wanted (id)
LEFT JOIN customers ON customers.id = wanted.id
LEFT JOIN stripe_customers AS made ON made.customer = wanted.id

-- name: ask_for_customer
-- Commit to making a customer at Stripe, unless an invoice has asked before.
INSERT INTO stripe_customers (customer, invoice) VALUES (%(customer)s, %(invoice)s) ON CONFLICT DO NOTHING

-- name: find_asked
-- Who asked first for a customer, and when, in Unix time.
SELECT invoice, extract(epoch FROM asked_at)::bigint AS asked_s FROM stripe_customers WHERE customer = %(customer)s

-- name: name_customer
-- It was made at Stripe.
UPDATE stripe_customers SET stripe_customer = %(stripe_customer)s WHERE customer = %(customer)s
