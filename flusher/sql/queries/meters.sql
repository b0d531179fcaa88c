-- name: bind_meters
-- Bind the ledger to an account, a mode and the meters there, unless it is bound; `find_sink` has what is in force.
INSERT INTO stripe_binding (account, livemode, sink, meters_since)
VALUES (%(account)s, %(livemode)s, 'meters', %(since)s)
ON CONFLICT DO NOTHING

-- name: find_sink
-- What this ledger is bound to.
SELECT account, livemode, sink, meters_since FROM stripe_binding

-- name: count_stripe_invoices
-- Invoices that went to Stripe, or are on their way.
SELECT count(*) FROM invoices WHERE delivery <> 'none'

-- name: list_summable_meters
-- The meters whose figures of hours add up to those of a month.
SELECT name FROM meters WHERE aggregation IN ('sum', 'count') ORDER BY name

-- name: lock_metering
-- One run at a time takes usage into events; released at the end of the transaction.
SELECT set_config('lock_timeout', '60s', true), pg_advisory_xact_lock(7386140)

-- name: try_lock_meter_calls
-- Whether this session may send meter events: Stripe takes one call at a time of a customer and meter. Released with
-- the session; correctness does not hang on it, the identifiers see to that.
SELECT pg_try_advisory_lock(7386141) AS held

-- name: list_metered_users
-- Users with usage, in order, after one of them, and whose usage it is; that of erased users stays as it is.
WITH RECURSIVE used (user_id, place) AS (
    (SELECT min(user_id), 1 FROM usage WHERE user_id > %(after)s)
    UNION ALL
    SELECT (SELECT min(usage.user_id) FROM usage WHERE usage.user_id > used.user_id), place + 1
    FROM used WHERE used.user_id IS NOT NULL AND place < %(limit)s
)
SELECT used.user_id AS name, coalesce(customer_users.customer, used.user_id) AS customer,
       used.user_id IN (SELECT token FROM erased_users) AS is_erased
FROM used LEFT JOIN customer_users ON customer_users.user_id = used.user_id
WHERE used.user_id IS NOT NULL
ORDER BY used.place

-- name: list_left_customers
-- Customers, in order, after one of them, with whole units that are carried, or whose users are another's now.
SELECT DISTINCT customer AS name, customer, customer IN (SELECT erasure FROM erasures) AS is_erased
FROM metered_carries
WHERE customer > %(after)s AND (units >= 1 OR NOT EXISTS (
    SELECT FROM customer_users JOIN usage USING (user_id) WHERE customer_users.customer = metered_carries.customer
    UNION ALL
    SELECT FROM usage
    WHERE user_id = metered_carries.customer
      AND NOT EXISTS (SELECT FROM customer_users WHERE customer_users.user_id = metered_carries.customer)
))
ORDER BY customer LIMIT %(limit)s

-- name: read_unmetered
-- Hours of customers' meters of which usage and what was taken so far differ, and by how much. A customer without users
-- has a row without one.
WITH wanted AS (
    SELECT * FROM unnest(%(customers)s::text[], %(users)s::text[], %(meters)s::text[]) AS given (customer, user_id, meter)
), used AS (
    SELECT wanted.customer, wanted.meter, date_trunc('hour', usage.window_start, 'UTC') AS hour, sum(usage.units) AS units
    FROM wanted
    JOIN usage ON usage.user_id = wanted.user_id AND usage.meter = wanted.meter
    WHERE usage.window_start >= %(since)s AND usage.window_start < %(until)s
    GROUP BY 1, 2, 3
), taken AS (
    SELECT customer, meter, hour, units
    FROM (SELECT DISTINCT customer, meter FROM wanted) AS pair JOIN metered_hours USING (customer, meter)
    WHERE hour >= %(since)s AND hour < %(until)s
)
SELECT customer, meter, hour, coalesce(used.units, 0) - coalesce(taken.units, 0) AS units
FROM used FULL JOIN taken USING (customer, meter, hour)
WHERE coalesce(used.units, 0) <> coalesce(taken.units, 0)
ORDER BY customer, meter, hour
LIMIT %(limit)s

-- name: read_carries
-- What is carried of customers' meters, and how many events of each there were.
SELECT customer, meter, units, events FROM metered_carries
WHERE customer = ANY(%(customers)s) AND meter = ANY(%(meters)s)

-- name: take_hours
-- Add to what was taken of hours, given by columns.
INSERT INTO metered_hours (customer, meter, hour, units)
SELECT * FROM unnest(%(customers)s::text[], %(meters)s::text[], %(hours)s::timestamptz[], %(units)s::numeric[])
ON CONFLICT (customer, meter, hour) DO UPDATE SET units = metered_hours.units + excluded.units

-- name: set_carries
-- What is carried now, given by columns.
INSERT INTO metered_carries (customer, meter, units, events)
SELECT * FROM unnest(%(customers)s::text[], %(meters)s::text[], %(units)s::numeric[], %(events)s::bigint[])
ON CONFLICT (customer, meter) DO UPDATE SET units = excluded.units, events = excluded.events

-- name: add_metered_events
-- New events, given by columns.
INSERT INTO metered_events (identifier, customer, meter, hour, units)
SELECT * FROM unnest(
    %(identifiers)s::text[], %(customers)s::text[], %(meters)s::text[], %(hours)s::timestamptz[], %(units)s::numeric[]
)

-- name: park_old_metered_events
-- Events that Stripe would not take any more because of their time, and does not have.
UPDATE metered_events SET state = 'parked', reason = %(reason)s, detail = %(detail)s
WHERE state IN ('pending', 'parked') AND tried_at IS NULL AND hour < clock_timestamp() - %(oldest)s::interval
  AND reason IS DISTINCT FROM %(reason)s

-- name: count_metered_events
-- Events that can be sent now, and their units.
SELECT count(*), coalesce(sum(units), 0) AS units FROM metered_events
WHERE state = 'pending' OR state = 'parked' AND tried_at IS NULL AND hour >= clock_timestamp() - %(oldest)s::interval

-- name: page_metered_events
-- Events that can be sent now, after one of them: never tried or refused, or not answered for while Stripe still knows
-- their identifiers. Where they go is frozen once they are tried.
SELECT identifier, customer, meter, hour, units, tried_at IS NOT NULL AS tried, event_name, stripe_customer
FROM metered_events
WHERE (
        state = 'pending' AND (tried_at IS NULL OR tried_at > clock_timestamp() - %(known)s::interval)
        OR state = 'parked' AND tried_at IS NULL AND hour >= clock_timestamp() - %(oldest)s::interval
      )
  AND (hour, identifier) > (%(hour)s, %(identifier)s)
ORDER BY hour, identifier LIMIT %(limit)s

-- name: begin_metered_events
-- Freeze where events go and when they were tried first, before the call.
UPDATE metered_events
SET event_name = new.event_name, stripe_customer = new.stripe_customer, tried_at = clock_timestamp(),
    state = 'pending', reason = NULL, detail = NULL
FROM unnest(%(identifiers)s::text[], %(event_names)s::text[], %(stripe_customers)s::text[])
     AS new (identifier, event_name, stripe_customer)
WHERE metered_events.identifier = new.identifier AND tried_at IS NULL AND state IN ('pending', 'parked')

-- name: end_metered_events
-- What became of events: sent, refused so that Stripe certainly does not have them, or not known yet.
UPDATE metered_events
SET state = new.state, reason = new.reason, detail = new.detail,
    tried_at = CASE WHEN new.state <> 'parked' THEN tried_at END,
    ended_at = CASE WHEN new.state = 'sent' THEN clock_timestamp() END
FROM unnest(%(identifiers)s::text[], %(states)s::text[], %(reasons)s::text[], %(details)s::text[])
     AS new (identifier, state, reason, detail)
WHERE metered_events.identifier = new.identifier AND metered_events.state IN ('pending', 'parked')

-- name: list_new_at_stripe
-- Those of Stripe's customers of whom it took nothing yet.
SELECT stripe_customer FROM unnest(%(stripe_customers)s::text[]) AS wanted (stripe_customer)
WHERE NOT EXISTS (
    SELECT FROM metered_events WHERE metered_events.stripe_customer = wanted.stripe_customer AND state = 'sent'
)

-- name: list_unconfirmed
-- Customers' hours with events of which nobody knows whether Stripe has them, and whose identifiers it may have
-- forgotten.
SELECT DISTINCT stripe_customer, event_name, hour FROM metered_events
WHERE state IN ('pending', 'parked') AND tried_at <= clock_timestamp() - %(known)s::interval
  AND (hour, stripe_customer, event_name) > (%(hour)s, %(stripe_customer)s, %(event_name)s)
ORDER BY hour, stripe_customer, event_name LIMIT %(limit)s

-- name: read_metered_hour
-- What Stripe should have of a customer's hour: what it took, what it may have, and whether that changed so lately that
-- its summaries need not have it yet.
SELECT coalesce(sum(units) FILTER (WHERE state = 'sent'), 0) AS sent,
       coalesce(sum(units) FILTER (WHERE state <> 'sent'), 0) AS doubtful,
       array_agg(identifier) FILTER (WHERE state <> 'sent') AS identifiers,
       bool_or(coalesce(ended_at, tried_at) > clock_timestamp() - %(summed)s::interval) AS is_fresh
FROM metered_events
WHERE stripe_customer = %(stripe_customer)s AND event_name = %(event_name)s AND hour = %(hour)s
  AND tried_at IS NOT NULL AND state <> 'returned'

-- name: settle_unconfirmed
-- What Stripe's summaries say of events: it has them, it does not, or nobody can tell.
UPDATE metered_events
SET state = %(state)s, reason = %(reason)s, detail = %(detail)s,
    tried_at = CASE WHEN %(state)s = 'pending' THEN NULL ELSE tried_at END,
    ended_at = CASE WHEN %(state)s = 'sent' THEN clock_timestamp() END
WHERE identifier = ANY(%(identifiers)s) AND state IN ('pending', 'parked')

-- name: list_metered_events
-- Events that are not at Stripe, or not known to be, the oldest hour first.
SELECT identifier, customer, meter, hour, units, state, reason, detail, tried_at IS NOT NULL AS tried
FROM metered_events
WHERE state IN ('pending', 'parked') AND (%(customer)s::text IS NULL OR customer = %(customer)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY state, hour, identifier LIMIT %(limit)s

-- name: sum_metered_events
-- How many events there are in a state, by meter and reason.
SELECT meter, reason, min(detail) AS detail, count(*) AS events, sum(units) AS units FROM metered_events
WHERE state = %(state)s
GROUP BY meter, reason ORDER BY meter, reason

-- name: sum_carries
-- What is carried, by meter.
SELECT meter, count(*) AS customers, sum(units) AS units FROM metered_carries
WHERE units <> 0 GROUP BY meter ORDER BY meter

-- name: decide_metered_event
-- An operator's decision on a parked event.
UPDATE metered_events SET state = %(state)s, reason = 'decided', detail = %(detail)s, ended_at = clock_timestamp()
WHERE identifier = %(identifier)s AND state = 'parked'
RETURNING customer, meter, units

-- name: find_metered_event
-- The state of an event.
SELECT state FROM metered_events WHERE identifier = %(identifier)s

-- name: carry_again
-- Units of an event that an operator gave back.
UPDATE metered_carries SET units = units + %(units)s WHERE customer = %(customer)s AND meter = %(meter)s
