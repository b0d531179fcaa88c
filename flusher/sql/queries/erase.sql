-- name: lock_erasures
-- One erasure at a time; released when the connection ends.
SELECT pg_try_advisory_lock(7386137)

-- name: find_erasing
-- What an erasure that was not finished goes on with.
SELECT user_id, token, erasure, shard FROM erasing WHERE customer = %(customer)s ORDER BY user_id

-- name: find_users_to_erase
-- The users of a customer, and the other customer that a user of this name belongs to, null for none.
SELECT coalesce((SELECT array_agg(user_id ORDER BY place) FROM customer_users WHERE customer = %(customer)s), '{}')
           AS users,
       (SELECT customer FROM customer_users WHERE user_id = %(customer)s AND customer <> %(customer)s) AS other

-- name: find_open_business
-- What must end before a customer can be erased: subscriptions that run, invoices, credit notes and meter events on their
-- way, open discrepancies, and holes that nobody accepted on the shards of its users.
SELECT
    (SELECT array_agg(id ORDER BY id) FROM subscriptions
     WHERE customer = %(customer)s AND (end_at IS NULL OR end_at > clock_timestamp())) AS running,
    (SELECT array_agg(id ORDER BY id) FROM invoices
     WHERE customer = %(customer)s AND delivery IN ('pending', 'parked')) AS undelivered,
    (SELECT array_agg(credit_notes.id ORDER BY credit_notes.id)
     FROM credit_notes JOIN invoices ON invoices.id = credit_notes.invoice
     WHERE customer = %(customer)s AND credit_notes.status IN ('draft', 'confirming')) AS notes,
    (SELECT array_agg(identifier ORDER BY identifier) FROM metered_events
     WHERE customer = %(customer)s AND state IN ('pending', 'parked')) AS metered,
    (SELECT count(*) FROM discrepancies WHERE resolved_at IS NULL AND user_id = ANY(%(users)s)) AS discrepancies,
    (SELECT count(*) FROM holes WHERE accepted_at IS NULL AND shard = ANY(%(shards)s)) AS holes

-- name: find_behind
-- Sidecars that may still have events which were accepted before a time, on some shards.
SELECT DISTINCT producer, host FROM positions JOIN producers USING (producer)
WHERE retired_at IS NULL AND shard = ANY(%(shards)s) AND watermark < %(since)s
ORDER BY producer

-- name: begin_erasure
-- The token of a customer.
INSERT INTO erasures (erasure, users) VALUES (%(erasure)s, %(users)s)

-- name: add_erased_users
-- The tokens of its users.
INSERT INTO erased_users (token, erasure) SELECT unnest(%(tokens)s::text[]), %(erasure)s

-- name: add_erasing
-- Whose tokens they are, until it is finished.
INSERT INTO erasing (user_id, customer, token, erasure, shard, salt)
SELECT user_id, %(customer)s, token, %(erasure)s, shard, %(salt)s
FROM unnest(%(users)s::text[], %(tokens)s::text[], %(shards)s::integer[]) AS new (user_id, token, shard)

-- name: allow_erasing
-- This transaction may change whom something was billed to.
SELECT set_config('taximeter.erasing', 'yes', true)

-- name: erase_customer_users
-- Its users, by their tokens.
UPDATE customer_users SET user_id = erasing.token FROM erasing
WHERE customer_users.user_id = erasing.user_id AND erasure = %(erasure)s

-- name: erase_customers
-- Its entry; also what names it at Stripe, as nothing is sent any more.
UPDATE customers SET id = %(erasure)s, stripe_customer = %(erasure)s WHERE id = %(customer)s

-- name: erase_subscriptions
-- Ids are usually the customer and the plan.
UPDATE subscriptions SET customer = %(erasure)s, id = %(erasure)s || '/' || numbered.number
FROM (SELECT id, row_number() OVER (ORDER BY start_at, id) AS number FROM subscriptions
      WHERE customer = %(customer)s) AS numbered
WHERE subscriptions.id = numbered.id

-- name: erase_invoices
-- Their amounts are kept by a trigger.
UPDATE invoices SET customer = %(erasure)s, detail = NULL WHERE customer = %(customer)s

-- name: erase_invoice_lines
-- Amounts, quantities, prices and periods stay. A line of a group says no more which group that was.
UPDATE invoice_line_records AS line
SET dimensions = erased_dimensions(dimensions, %(salt)s), description = price
FROM invoices
WHERE invoices.id = line.invoice AND invoices.customer = %(erasure)s AND line.dimensions <> '{}'

-- name: erase_intents
-- What was sent to Stripe; the ids of what it made stay.
UPDATE stripe_intents SET params = '{}', error = NULL
FROM invoices WHERE invoices.id = stripe_intents.invoice AND invoices.customer = %(erasure)s

-- name: erase_credit_notes
-- What people and Stripe said of them; amounts stay.
UPDATE credit_notes SET reason = 'erased', problem = NULL
FROM invoices WHERE invoices.id = credit_notes.invoice AND invoices.customer = %(erasure)s

-- name: erase_invoice_voids
-- Why invoices were voided.
UPDATE invoice_voids SET reason = 'erased'
FROM invoices WHERE invoices.id = invoice_voids.invoice AND invoices.customer = %(erasure)s

-- name: erase_stripe_customers
-- Who it is at Stripe: nothing is sent there any more.
DELETE FROM stripe_customers WHERE customer = %(customer)s

-- name: erase_metered_hours
-- What was sent to Stripe's meters stays sent.
UPDATE metered_hours SET customer = %(erasure)s WHERE customer = %(customer)s

-- name: erase_metered_carries
-- Meter events follow.
UPDATE metered_carries SET customer = %(erasure)s WHERE customer = %(customer)s

-- name: erase_metered_events
-- Who they were of at Stripe, and what it said.
UPDATE metered_events
SET detail = NULL, stripe_customer = CASE WHEN stripe_customer IS NOT NULL THEN %(erasure)s END
WHERE customer = %(erasure)s

-- name: erase_small_amounts
-- What was too little to collect: no invoice of the customer follows that could bill it.
UPDATE small_amounts SET customer = %(erasure)s WHERE customer = %(customer)s

-- name: erase_grants
-- Credit stays with the token; ids and reasons that a person wrote don't.
UPDATE credit_grants
SET customer = %(erasure)s,
    id = CASE kind WHEN 'prepaid' THEN 'grant_' || erased_text(id, %(salt)s) ELSE id END,
    void_reason = CASE WHEN void_reason IS NOT NULL THEN 'erased' END
WHERE customer = %(customer)s

-- name: count_erased
-- Add to what an erasure changed.
UPDATE erasures SET counts = counts || (
    SELECT coalesce(jsonb_object_agg(key, coalesce((counts ->> key)::bigint, 0) + value::bigint), '{}')
    FROM jsonb_each_text(%(counts)s::jsonb)
)
WHERE erasure = %(erasure)s

-- name: usage_days_to_erase
-- Days with usage of an erasure, by shard.
SELECT DISTINCT erasing.shard, date_trunc('day', moment, 'UTC') AS day
FROM erasing CROSS JOIN LATERAL (
    SELECT window_start AS moment FROM usage WHERE usage.user_id = erasing.user_id
    UNION ALL SELECT event_time FROM usage_values WHERE usage_values.user_id = erasing.user_id
    UNION ALL SELECT event_time FROM boundary_events WHERE boundary_events.user_id = erasing.user_id
) AS moments
WHERE erasure = %(erasure)s

-- name: count_events_to_erase
-- How many events of some users there are in a range of time, by shard.
SELECT shard, count(*)::bigint AS events FROM events
WHERE event_time >= %(start)s AND event_time < %(end)s AND user_id = ANY(%(users)s)
GROUP BY shard

-- name: erase_events
-- Key and fingerprint stay: a repeat is still one.
UPDATE events SET user_id = erasing.token, source = '', id = NULL, properties = NULL FROM erasing
WHERE events.user_id = erasing.user_id AND erasure = %(erasure)s
  AND events.user_id = ANY(%(users)s) AND event_time >= %(start)s AND event_time < %(end)s

-- name: erase_boundary_events
-- Events of dropped months that were kept for a period.
UPDATE boundary_events SET user_id = erasing.token, properties = NULL FROM erasing
WHERE boundary_events.user_id = erasing.user_id AND erasure = %(erasure)s
  AND boundary_events.user_id = ANY(%(users)s) AND event_time >= %(start)s AND event_time < %(end)s

-- name: erase_usage
-- Rows of the tokens may be there already, when usage came while this was under way.
WITH old AS (
    DELETE FROM usage USING erasing
    WHERE usage.user_id = erasing.user_id AND erasure = %(erasure)s
      AND usage.user_id = ANY(%(users)s) AND window_start >= %(start)s AND window_start < %(end)s
    RETURNING usage.shard, token, meter, erased_dimensions(dimensions, salt) AS dimensions, window_start, units, events
)
INSERT INTO usage (shard, user_id, meter, dimensions, window_start, units, events)
SELECT shard, token, meter, dimensions, window_start, units, events FROM old
ON CONFLICT (user_id, meter, window_start, dimensions) DO UPDATE
SET units = usage.units + excluded.units, events = usage.events + excluded.events

-- name: erase_usage_values
-- Different labels stay different.
UPDATE usage_values
SET user_id = erasing.token, dimensions = erased_dimensions(dimensions, salt), label = erased_text(label, salt)
FROM erasing
WHERE usage_values.user_id = erasing.user_id AND erasure = %(erasure)s
  AND usage_values.user_id = ANY(%(users)s) AND event_time >= %(start)s AND event_time < %(end)s

-- name: erase_event_conflicts
-- Events that were not counted.
UPDATE event_conflicts SET user_id = erasing.token, source = '', id = NULL, properties = NULL FROM erasing
WHERE event_conflicts.user_id = erasing.user_id AND erasure = %(erasure)s

-- name: erase_voids
-- Times and keys stay: what they cancel stays cancelled.
UPDATE voids SET user_id = erasing.token, source = '', id = '', reason = 'erased' FROM erasing
WHERE voids.user_id = erasing.user_id AND erasure = %(erasure)s

-- name: erase_backfill_events
-- What a backfill brought can't be cancelled by name any more.
DELETE FROM backfill_events USING erasing WHERE backfill_events.user_id = erasing.user_id AND erasure = %(erasure)s

-- name: erase_discrepancies
-- Those that are resolved: an open one refuses the erasure.
UPDATE discrepancies SET user_id = erasing.token, dimensions = erased_dimensions(dimensions, salt) FROM erasing
WHERE discrepancies.user_id = erasing.user_id AND erasure = %(erasure)s

-- name: list_quarantine_with
-- Rows of the quarantine behind a number whose records contain any of some texts, oldest first.
SELECT quarantined, place, resolved_at IS NOT NULL AS decided, record FROM quarantine
WHERE quarantined > %(after)s
  AND EXISTS (SELECT FROM unnest(%(texts)s::bytea[]) AS text WHERE position(text IN record) > 0)
ORDER BY quarantined LIMIT %(limit)s

-- name: erase_quarantined
-- A record without somebody's events; where the row is of one of them, also what was said of it. The figures of the row
-- are the proof's, and stay.
UPDATE quarantine
SET record = %(record)s, detail = CASE WHEN %(own)s THEN 'erased' ELSE detail END,
    resolution = CASE WHEN %(own)s AND resolved_at IS NOT NULL THEN 'erased' ELSE resolution END
WHERE quarantined = %(quarantined)s

-- name: note_erased_usage
-- What usage shows for the tokens, for the proof.
UPDATE erased_users SET usage_events = used.events, usage_units = used.units
FROM (
    SELECT erased.token, coalesce(sum(usage.events), 0)::bigint AS events, coalesce(sum(usage.units), 0) AS units
    FROM erased_users AS erased LEFT JOIN usage ON usage.user_id = erased.token
    WHERE erased.erasure = %(erasure)s GROUP BY erased.token
) AS used
WHERE erased_users.token = used.token

-- name: finish_erasure
-- From here on nothing leads from the tokens back to the ids.
WITH forgotten AS (DELETE FROM erasing WHERE erasure = %(erasure)s)
UPDATE erasures SET finished_at = now() WHERE erasure = %(erasure)s

-- name: read_erasure
-- How an erasure stands.
SELECT begun_at, finished_at, users, counts FROM erasures WHERE erasure = %(erasure)s

-- name: proof_erased
-- Erased users, and those whose usage is no longer what it was when they were.
SELECT count(*)::bigint,
       coalesce(array_agg(token ORDER BY token)
                FILTER (WHERE (usage_events, usage_units) IS DISTINCT FROM (used.events, used.units)), '{}')
FROM erased_users CROSS JOIN LATERAL (
    SELECT coalesce(sum(usage.events), 0)::bigint AS events, coalesce(sum(usage.units), 0) AS units
    FROM usage WHERE usage.user_id = token
) AS used
WHERE usage_events IS NOT NULL
