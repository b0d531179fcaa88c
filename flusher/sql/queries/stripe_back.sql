-- name: find_stripe_event
-- Whether an event of Stripe's took effect.
SELECT FROM stripe_events WHERE id = %(event)s

-- name: add_stripe_event
-- Remember that an event took effect; no row when another delivery of it was first.
INSERT INTO stripe_events (id, type) VALUES (%(event)s, %(type)s) ON CONFLICT DO NOTHING RETURNING id

-- name: forget_stripe_events
-- Forget events that are sent no more, a few at a time.
DELETE FROM stripe_events WHERE id IN (
    SELECT id FROM stripe_events WHERE received_at < now() - make_interval(days => %(days)s)
    ORDER BY received_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)

-- name: lock_invoice
-- How an invoice stands, held until the transaction ends.
SELECT id, customer, subscription, currency, total, status, delivery, stripe_invoice
FROM invoices WHERE id = %(invoice)s FOR UPDATE

-- name: bring_status
-- Bring an invoice to a status.
UPDATE invoices SET status = %(status)s WHERE id = %(invoice)s

-- name: give_back_credit
-- What a voided invoice drew becomes credit again, on the same terms, once.
INSERT INTO credit_grants
    (id, customer, currency, name, kind, amount, remaining, priority, cost_basis, effective_at, expires_at, granted_at)
SELECT 'grant_' || left(encode(sha256(convert_to('void' || invoice || grant_id, 'UTF8')), 'hex'), 24),
       customer, currency, name, kind, drawn.amount, drawn.amount, priority, cost_basis, effective_at, expires_at, now()
FROM credit_draws AS drawn JOIN credit_grants ON credit_grants.id = grant_id
WHERE invoice = %(invoice)s
ON CONFLICT DO NOTHING

-- name: add_invoice_void
-- Why an invoice is voided; the first reason stays.
INSERT INTO invoice_voids (invoice, reason) VALUES (%(invoice)s, %(reason)s) ON CONFLICT DO NOTHING

-- name: note_rebilled
-- What a voided invoice billed is taken out; no row when it was before.
UPDATE invoice_voids SET rebilled_at = now() WHERE invoice = %(invoice)s AND rebilled_at IS NULL RETURNING invoice

-- name: lock_subscription
-- Nobody makes an invoice of it meanwhile.
SELECT id FROM subscriptions WHERE id = %(subscription)s FOR NO KEY UPDATE

-- name: unbill
-- Take what the lines of an invoice billed out of what is billed of their charges: a charge's amount is the sum of all
-- lines for it. Several charges of one name and period are told apart by nothing on a line, and their sum is what counts.
WITH lines AS (
    SELECT price, line.period_start, sum(amount) AS amount
    FROM invoice_line_records AS line
    WHERE invoice = %(invoice)s AND line.kind <> 'credit'
    GROUP BY price, line.period_start
), charges AS (
    SELECT DISTINCT ON (billed.price, billed.period_start) billed.*, lines.amount AS taken
    FROM billed JOIN lines USING (price, period_start)
    WHERE subscription = %(subscription)s
    ORDER BY billed.price, billed.period_start, billed.invoice = %(invoice)s DESC, billed.amount = lines.amount DESC,
             cost_of, part, kind
)
UPDATE billed
SET amount = billed.amount - taken,
    quantity = CASE WHEN billed.amount = taken THEN 0 ELSE billed.quantity END,
    events = CASE WHEN billed.amount = taken THEN 0 ELSE billed.events END
FROM charges
WHERE (billed.subscription, billed.cost_of, billed.part, billed.kind, billed.price, billed.period_start)
    = (charges.subscription, charges.cost_of, charges.part, charges.kind, charges.price, charges.period_start)

-- name: unbill_small_amounts
-- What was too little to collect before, and was billed by a voided invoice.
UPDATE small_amounts SET billed_by = NULL WHERE billed_by = %(invoice)s

-- name: sum_credit_notes
-- What credit notes that were not discarded take off an invoice, and one of its lines where it is given.
SELECT coalesce(sum(amount), 0) AS of_invoice, coalesce(sum(amount) FILTER (WHERE line = %(line)s), 0) AS of_line,
       count(*) FILTER (WHERE status = 'confirming') AS confirming,
       coalesce(sum(amount) FILTER (WHERE status = 'issued'), 0) AS issued
FROM credit_notes WHERE invoice = %(invoice)s AND status <> 'discarded'

-- name: add_credit_note
-- A draft.
INSERT INTO credit_notes (id, invoice, line, quantity, amount, reason, paid_as)
VALUES (%(id)s, %(invoice)s, %(line)s, %(quantity)s, %(amount)s, %(reason)s, %(paid_as)s)

-- name: find_credit_note
-- A credit note, with whose invoice it is for.
SELECT credit_notes.*, customer, currency FROM credit_notes JOIN invoices ON invoices.id = invoice
WHERE credit_notes.id = %(note)s

-- name: page_credit_notes
-- Credit notes, the newest first: of an invoice and in a status where they are given, after one where it is.
SELECT credit_notes.*, customer, currency FROM credit_notes JOIN invoices ON invoices.id = invoice
WHERE (%(invoice)s::text IS NULL OR invoice = %(invoice)s)
  AND (%(status)s::text IS NULL OR credit_notes.status = %(status)s)
  AND (%(after)s::text IS NULL
       OR (credit_notes.made_at, credit_notes.id) < (SELECT made_at, id FROM credit_notes WHERE id = %(after)s))
ORDER BY credit_notes.made_at DESC, credit_notes.id DESC
LIMIT %(limit)s

-- name: move_credit_note
-- Move a credit note on; no row when it is not where it was.
UPDATE credit_notes
SET status = %(to)s, problem = %(problem)s, stripe_credit_note = coalesce(%(made)s, stripe_credit_note),
    decided_at = CASE WHEN %(to)s IN ('issued', 'discarded') THEN clock_timestamp() END
WHERE id = %(note)s AND status = %(from)s
RETURNING id

-- name: lock_correction
-- One command at a time corrects an invoice; released by `unlock_correction` or when the connection ends. Correctness
-- does not hang on it, the idempotency keys see to that.
SELECT pg_advisory_lock(7386139, hashtext(%(invoice)s))

-- name: unlock_correction
-- The correction of an invoice ended.
SELECT pg_advisory_unlock(7386139, hashtext(%(invoice)s))

-- name: begin_reconciliation
-- What was seen at Stripe, until the connection ends.
CREATE TEMPORARY TABLE IF NOT EXISTS seen_at_stripe (stripe_invoice text PRIMARY KEY)

-- name: note_seen
-- Invoices that are at Stripe.
INSERT INTO seen_at_stripe SELECT unnest(%(invoices)s::text[]) ON CONFLICT DO NOTHING

-- name: find_here
-- What we know of invoices by their ids.
SELECT id, currency, total, status, delivery, stripe_invoice FROM invoices WHERE id = ANY(%(invoices)s)

-- name: page_unseen
-- Invoices that were sent and not seen at Stripe, in the order of their ids.
SELECT id, currency, total, status, delivery, stripe_invoice FROM invoices
WHERE delivery = 'sent' AND id > %(after)s
  AND NOT EXISTS (SELECT FROM seen_at_stripe WHERE seen_at_stripe.stripe_invoice = invoices.stripe_invoice)
ORDER BY id LIMIT %(limit)s

-- name: first_intent_at
-- When this ledger asked Stripe for anything first; null when it never did.
SELECT min(created_at) AS at FROM stripe_intents

-- name: customers_at_stripe
-- Ours that are a customer of Stripe's.
SELECT id FROM customers WHERE stripe_customer = %(customer)s ORDER BY id LIMIT 10

-- name: doctor_stripe
-- Whether anything was sent; how many invoices are open for so long, seconds since the last event of Stripe's, and how
-- many credit notes may exist at Stripe.
SELECT EXISTS (SELECT FROM stripe_binding),
       (SELECT count(*) FROM invoices
        WHERE delivery = 'sent' AND status = 'open' AND finalized_at < now() - make_interval(secs => %(age_s)s)),
       (SELECT extract(epoch FROM now() - max(received_at))::bigint FROM stripe_events),
       (SELECT count(*) FROM credit_notes WHERE status = 'confirming')
