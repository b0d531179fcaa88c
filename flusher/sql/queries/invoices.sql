-- name: read_clock
-- Postgres's clock, and the ledger's id and shard count.
SELECT clock_timestamp() AS now, id AS ledger, shards FROM ledger

-- name: list_live_producers
-- Every unretired producer with the earliest watermark that is committed for it; null where a shard has none.
SELECT producers.producer, producers.host,
       CASE WHEN count(positions.watermark) = (SELECT shards FROM ledger) THEN min(positions.watermark) END AS watermark
FROM producers LEFT JOIN positions USING (producer)
WHERE producers.retired_at IS NULL
GROUP BY producers.producer, producers.host
ORDER BY producers.producer

-- name: wait_for_subscriptions
-- How long to wait for another run that makes invoices of the same subscriptions.
SELECT set_config('lock_timeout', '60s', true)

-- name: hold_catalog
-- Nobody changes what subscriptions pay by until the end of the transaction: see lock_catalog.
SELECT pg_advisory_xact_lock_shared(7386133)

-- name: count_plan_versions
-- How many there are: versions are added, and never changed.
SELECT count(*) FROM plan_versions

-- name: lock_subscriptions
-- One run at a time makes invoices of a subscription; released at the end of the transaction. In one order, so that two
-- runs wait for each other and never both for the other. What an erased customer was billed stays as it is.
SELECT id FROM subscriptions
WHERE id > %(after)s AND (%(customer)s::text IS NULL OR customer = %(customer)s)
  AND customer NOT IN (SELECT erasure FROM erasures)
ORDER BY id LIMIT %(limit)s
FOR NO KEY UPDATE

-- name: count_subscriptions
-- How many there are, of a customer where it is given.
SELECT count(*) FROM subscriptions WHERE %(customer)s::text IS NULL OR customer = %(customer)s

-- name: list_accounts
-- How far subscriptions are invoiced: their last closed period, and which other invoices there are.
SELECT wanted.id AS subscription, last.period_start, last.period_end, last.plan, last.plan_version, last.terms,
       last.zone, last.anchor, other.opened, other.adjustments, other.thresholds,
       EXISTS (SELECT FROM late_releases WHERE subscription = wanted.id AND billed_at IS NULL) AS released,
       (SELECT min(since) FROM reratings WHERE subscription = wanted.id) AS rerated_since
FROM unnest(%(ids)s::text[]) AS wanted (id)
LEFT JOIN LATERAL (
    SELECT * FROM invoices WHERE subscription = wanted.id AND kind = 'period' ORDER BY period_start DESC LIMIT 1
) AS last ON true
CROSS JOIN LATERAL (
    SELECT coalesce(bool_or(kind = 'opening'), false) AS opened,
           count(*) FILTER (WHERE kind = 'adjustment' AND period_start = last.period_start) AS adjustments,
           count(*) FILTER (WHERE kind = 'threshold' AND period_start >= coalesce(last.period_end, '-infinity'))
               AS thresholds
    FROM invoices WHERE subscription = wanted.id AND kind <> 'period'
) AS other

-- name: list_closed
-- The closed periods of subscriptions that end after a time of each, oldest first.
SELECT subscription, period_start, period_end, plan, plan_version, terms, zone, anchor
FROM unnest(%(ids)s::text[], %(since)s::timestamptz[]) AS wanted (id, since)
JOIN invoices ON subscription = wanted.id AND kind = 'period' AND period_end > wanted.since
ORDER BY subscription, period_start

-- name: find_tardy
-- Those of the rows in whose windows something was counted after a time, by number.
SELECT DISTINCT wanted.number
FROM unnest(%(numbers)s::integer[], %(users)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
            %(ends)s::timestamptz[], %(limits)s::timestamptz[])
     AS wanted (number, user_id, meter, starts, ends, late)
WHERE EXISTS (
    SELECT FROM usage
    WHERE user_id = wanted.user_id AND meter = wanted.meter AND changed_at > wanted.late
      AND window_start >= date_bin('15 minutes', wanted.starts, 'epoch') AND window_start < wanted.ends
)

-- name: list_billed
-- What was billed so far of subscriptions, for the periods that begin since a time of each.
SELECT subscription, cost_of, part, kind, price, period_start, period_end, meter, quantity, events, amount
FROM unnest(%(ids)s::text[], %(since)s::timestamptz[]) AS wanted (id, since)
JOIN billed ON subscription = wanted.id AND cost_of >= wanted.since
ORDER BY subscription, cost_of, part, kind, price, period_start

-- name: upsert_billed
-- Remember what is billed now of charges, given by columns.
INSERT INTO billed
    (subscription, cost_of, part, kind, price, period_start, period_end, meter, quantity, events, amount, invoice)
SELECT * FROM unnest(
    %(subscription)s::text[], %(cost_of)s::timestamptz[], %(part)s::text[], %(kind)s::text[], %(price)s::text[],
    %(period_start)s::timestamptz[], %(period_end)s::timestamptz[], %(meter)s::text[], %(quantity)s::numeric[],
    %(events)s::bigint[], %(amount)s::numeric[], %(invoice)s::text[]
)
ON CONFLICT (subscription, cost_of, part, kind, price, period_start) DO UPDATE
SET (period_end, meter, quantity, events, amount, invoice)
    = (excluded.period_end, excluded.meter, excluded.quantity, excluded.events, excluded.amount, excluded.invoice)

-- name: lock_small_amounts
-- What is carried for customers in currencies, and billed by nobody: held until the transaction ends, in one order.
SELECT invoice, small_amounts.customer, small_amounts.currency, amount
FROM small_amounts
JOIN unnest(%(customers)s::text[], %(currencies)s::text[]) AS wanted (customer, currency)
     ON small_amounts.customer = wanted.customer AND small_amounts.currency = wanted.currency
WHERE billed_by IS NULL
ORDER BY invoice FOR UPDATE OF small_amounts

-- name: add_small_amounts
-- What new invoices carry.
INSERT INTO small_amounts (invoice, customer, currency, amount)
SELECT * FROM unnest(%(invoices)s::text[], %(customers)s::text[], %(currencies)s::text[], %(amounts)s::numeric[])

-- name: bill_small_amounts
-- What new invoices bill of it.
UPDATE small_amounts SET billed_by = new.billed_by
FROM unnest(%(invoices)s::text[], %(billed_by)s::text[]) AS new (invoice, billed_by)
WHERE small_amounts.invoice = new.invoice

-- name: list_terms
-- Terms by their hash.
SELECT terms, definition FROM terms WHERE terms = ANY(%(terms)s)

-- name: insert_terms
-- Terms that may be there already.
INSERT INTO terms (terms, definition) VALUES (%(terms)s, %(definition)s) ON CONFLICT DO NOTHING

-- name: use_releases
-- Late usage that was released is billed by now.
UPDATE late_releases SET billed_at = now() WHERE billed_at IS NULL AND subscription = ANY(%(ids)s)

-- name: release_late
-- Let the late usage of a subscription be billed whatever its age.
INSERT INTO late_releases (subscription, reason) VALUES (%(subscription)s, %(reason)s)

-- name: open_discrepancies_of
-- Open discrepancies between counters and stream that touch the usage of some users (rule 9).
SELECT user_id, meter, window_start FROM discrepancies WHERE resolved_at IS NULL AND user_id = ANY(%(users)s)

-- name: insert_invoices
-- Store new invoices, given by columns. One that is there already, of this kind for the subscription and the period,
-- fails them all.
INSERT INTO invoices
    (id, subscription, kind, sequence, customer, plan, plan_version, currency, period_start, period_end, total, status,
     delivery, closed_without, terms, zone, anchor, finalized_at)
SELECT id, subscription, kind, sequence, customer, plan, plan_version, currency, period_start, period_end, total, status,
       delivery, ARRAY(SELECT jsonb_array_elements_text(closed_without)), terms, zone, anchor,
       CASE WHEN status <> 'draft' THEN now() END
FROM unnest(
    %(id)s::text[], %(subscription)s::text[], %(kind)s::text[], %(sequence)s::integer[], %(customer)s::text[],
    %(plan)s::text[], %(plan_version)s::integer[], %(currency)s::text[], %(period_start)s::timestamptz[],
    %(period_end)s::timestamptz[], %(total)s::numeric[], %(status)s::text[], %(delivery)s::text[],
    %(closed_without)s::jsonb[], %(terms)s::text[], %(zone)s::text[], %(anchor)s::timestamptz[]
) AS new (id, subscription, kind, sequence, customer, plan, plan_version, currency, period_start, period_end, total,
          status, delivery, closed_without, terms, zone, anchor)

-- name: copy_invoice_lines
-- Store the lines of new invoices.
COPY invoice_line_records
    (id, invoice, place, kind, price, meter, dimensions, tier, period_start, period_end, description, quantity,
     unit_price, amount, working)
FROM STDIN

-- name: find_invoice_discrepancies
-- Open discrepancies that touch what an invoice bills: its own period, and the periods that its lines are of.
SELECT count(*) FROM discrepancies
WHERE resolved_at IS NULL AND user_id = ANY(%(users)s) AND EXISTS (
    SELECT FROM invoices JOIN billed USING (subscription)
    WHERE invoices.id = %(invoice)s AND invoices.kind <> 'opening'
      AND billed.meter = discrepancies.meter
      AND discrepancies.window_start > billed.period_start - interval '15 minutes'
      AND discrepancies.window_start < billed.period_end
      AND (billed.period_start = invoices.period_start OR EXISTS (
          SELECT FROM invoice_line_records AS line
          WHERE line.invoice = invoices.id AND line.price = billed.price AND line.period_start = billed.period_start
      ))
)

-- name: open_hole_shards
-- Shards on which records of a producer are known to be missing, and nobody has accepted it (rule 7).
SELECT DISTINCT shard FROM holes WHERE accepted_at IS NULL

-- name: find_invoices
-- Invoices by id, in the order of the ids.
SELECT invoices.* FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS wanted (id, place)
JOIN invoices USING (id) ORDER BY wanted.place

-- name: find_invoice_lines
-- The lines of some invoices, in order.
SELECT * FROM invoice_line_records WHERE invoice = ANY(%(ids)s) ORDER BY invoice, place

-- name: page_invoices
-- Ids of the newest invoices (of one customer where it is given), after one of them where it is given.
SELECT id FROM invoices
WHERE (%(customer)s::text IS NULL OR customer = %(customer)s)
  AND (%(after)s::text IS NULL
       OR (made_at, period_start, id) < (SELECT made_at, period_start, id FROM invoices WHERE id = %(after)s))
ORDER BY made_at DESC, period_start DESC, id DESC
LIMIT %(limit)s
