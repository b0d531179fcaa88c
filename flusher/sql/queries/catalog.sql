-- name: lock_catalog
-- One change at a time, and none while a chunk of invoices is made: those hold it shared. Readers are not held up.
SELECT pg_advisory_xact_lock(7386133)

-- name: list_meters
-- The meters in force.
SELECT name, event_type, aggregation, field, group_by, filter, detailed FROM meters ORDER BY name

-- name: list_plan_versions
-- Every version of every plan (of one plan where it is given), oldest first.
SELECT plan, version, effective_at, at_once, definition
FROM plan_versions
WHERE %(plan)s::text IS NULL OR plan = %(plan)s
ORDER BY plan, version

-- name: list_customers
-- Every customer with an entry, with its users in order.
SELECT id, stripe_customer, time_zone,
       coalesce(array_agg(user_id ORDER BY place) FILTER (WHERE user_id IS NOT NULL), '{}') AS user_ids
FROM customers LEFT JOIN customer_users ON customer = id
GROUP BY id
ORDER BY id

-- name: find_customers
-- Some customers: their entries, null where there is none, and whether another customer has the user of their name.
SELECT wanted.id, stripe_customer, time_zone,
       coalesce(array_agg(user_id ORDER BY place) FILTER (WHERE user_id IS NOT NULL), '{}') AS user_ids,
       EXISTS (SELECT FROM customer_users WHERE user_id = wanted.id) AS is_taken
FROM unnest(%(ids)s::text[]) AS wanted (id)
LEFT JOIN customers ON customers.id = wanted.id
LEFT JOIN customer_users ON customer = wanted.id
GROUP BY wanted.id, stripe_customer, time_zone

-- name: list_subscriptions
-- Every subscription (of one customer where it is given).
SELECT * FROM subscription_terms
WHERE %(customer)s::text IS NULL OR customer = %(customer)s
ORDER BY customer, start_at, id

-- name: page_subscriptions
-- The subscriptions (of one customer where it is given) that come next after an id.
SELECT * FROM subscription_terms
WHERE id > %(after)s AND (%(upto)s::text IS NULL OR id <= %(upto)s)
  AND (%(customer)s::text IS NULL OR customer = %(customer)s)
ORDER BY id LIMIT %(limit)s

-- name: count_subscribers
-- How many customers have subscriptions that run at some time of a period.
SELECT count(DISTINCT customer) FROM subscriptions
WHERE start_at < %(end)s AND (end_at IS NULL OR end_at > %(start)s)

-- name: page_subscribers
-- The customers with subscriptions that run at some time of a period, that come next after an id.
SELECT DISTINCT customer FROM subscriptions
WHERE customer > %(after)s AND start_at < %(end)s AND (end_at IS NULL OR end_at > %(start)s)
ORDER BY customer LIMIT %(limit)s

-- name: list_subscriptions_of
-- Every subscription of some customers.
SELECT * FROM subscription_terms WHERE customer = ANY(%(customers)s) ORDER BY customer, start_at, id

-- name: find_subscriptions
-- Some subscriptions by id.
SELECT * FROM subscription_terms WHERE id = ANY(%(ids)s)

-- name: meters_with_usage
-- Those of the names under which usage was counted.
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE EXISTS (SELECT FROM usage WHERE meter = name)

-- name: hold_drains
-- Let no drain commit until the transaction ends: those after it know of meters whose values are kept from now on, and
-- what those before it counted is seen.
SELECT shard FROM shards ORDER BY shard FOR UPDATE

-- name: upsert_meter
-- Add a meter, or change one that has no usage yet.
INSERT INTO meters (name, event_type, aggregation, field, group_by, filter, detailed)
VALUES (%(name)s, %(event_type)s, %(aggregation)s, %(field)s, %(group_by)s, %(filter)s, %(detailed)s)
ON CONFLICT (name) DO UPDATE
SET (event_type, aggregation, field, group_by, filter, detailed)
    = (excluded.event_type, excluded.aggregation, excluded.field, excluded.group_by, excluded.filter,
       excluded.detailed)

-- name: add_revision
-- The meters under their next number: batches from now on are counted under it.
INSERT INTO revisions (revision, meters)
SELECT coalesce(max(revision), 0) + 1, %(meters)s::jsonb FROM revisions
RETURNING revision

-- name: last_revision
-- The number of the meters in force.
SELECT coalesce(max(revision), 0) FROM revisions

-- name: add_plan
-- A plan's name; its prices are in its versions.
INSERT INTO plans (name) VALUES (%(plan)s) ON CONFLICT DO NOTHING

-- name: add_plan_version
-- A plan under its next version.
INSERT INTO plan_versions (plan, version, effective_at, at_once, definition)
SELECT %(plan)s, coalesce(max(version), 0) + 1, %(effective_at)s, %(at_once)s, %(definition)s
FROM plan_versions WHERE plan = %(plan)s
RETURNING version

-- name: upsert_customer
-- Add or change a customer; its users are in customer_users.
INSERT INTO customers (id, stripe_customer, time_zone)
VALUES (%(id)s, %(stripe_customer)s, %(time_zone)s)
ON CONFLICT (id) DO UPDATE SET (stripe_customer, time_zone) = (excluded.stripe_customer, excluded.time_zone)

-- name: forget_users_of
-- Take all users off these customers, before their new lists are written.
DELETE FROM customer_users WHERE customer = ANY(%(customers)s)

-- name: add_customer_user
-- A user of a customer, at its place in the list.
INSERT INTO customer_users (user_id, customer, place) VALUES (%(user_id)s, %(customer)s, %(place)s)

-- name: stage_subscriptions
-- Where subscriptions are copied to; `place` is where each comes from, by its number.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_subscriptions (
    place bigint, id text, customer text, plan text, start_at timestamptz, end_at timestamptz, overrides jsonb
) ON COMMIT DROP

-- name: stage_changes
-- Where their changes are copied to.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_changes (
    subscription text, at timestamptz, plan text, overrides jsonb
) ON COMMIT DROP

-- name: clear_stage
-- Several writes may share a transaction.
TRUNCATE staged_subscriptions, staged_changes

-- name: copy_subscriptions
-- Those to be written.
COPY staged_subscriptions (place, id, customer, plan, start_at, end_at, overrides) FROM STDIN

-- name: copy_changes
-- All changes of those.
COPY staged_changes (subscription, at, plan, overrides) FROM STDIN

-- name: upsert_subscriptions
-- Add the staged subscriptions, or put what can change of them in the place of what was.
INSERT INTO subscriptions (id, customer, plan, start_at, end_at, overrides)
SELECT id, customer, plan, start_at, end_at, overrides FROM staged_subscriptions ORDER BY id
ON CONFLICT (id) DO UPDATE SET (plan, end_at, overrides) = (excluded.plan, excluded.end_at, excluded.overrides)

-- name: forget_changes
-- Take the changes off the staged subscriptions, before their new ones are written.
DELETE FROM subscription_changes WHERE subscription IN (SELECT id FROM staged_subscriptions)

-- name: add_changes
-- The staged changes.
INSERT INTO subscription_changes (subscription, at, plan, overrides)
SELECT subscription, at, plan, overrides FROM staged_changes ORDER BY subscription, at

-- name: analyze_staged
-- Nobody else does it for a temporary table, and joins are planned by it.
ANALYZE staged_subscriptions

-- name: list_staged_of_others
-- Staged subscriptions of a customer without an entry, whose user belongs to another customer.
SELECT staged.place, staged.customer, customer_users.customer AS owner
FROM staged_subscriptions AS staged JOIN customer_users ON user_id = staged.customer
WHERE NOT EXISTS (SELECT FROM customers WHERE customers.id = staged.customer)
ORDER BY staged.place LIMIT %(limit)s

-- name: list_beside_staged
-- Every subscription of each customer that has several and was staged, by customer.
SELECT * FROM subscription_terms
WHERE customer IN (
    SELECT customer FROM subscriptions
    WHERE customer IN (SELECT customer FROM staged_subscriptions)
    GROUP BY customer HAVING count(*) > 1
)
ORDER BY customer, start_at, id

-- name: list_subscriptions_invoiced
-- How far subscriptions are invoiced; no row for one that is not at all.
SELECT subscription, max(period_end) AS until
FROM invoices WHERE kind = 'period' AND subscription = ANY(%(ids)s)
GROUP BY subscription

-- name: list_plans_invoiced
-- Until when periods are invoiced by some plans, where that is after a time.
SELECT plan, max(period_end) AS until
FROM invoices WHERE kind = 'period' AND plan = ANY(%(plans)s) AND period_end > %(at)s
GROUP BY plan

-- name: list_billed_by
-- The subscriptions with periods that are invoiced by some plans and end after a time.
SELECT DISTINCT subscription FROM invoices WHERE kind = 'period' AND plan = ANY(%(plans)s) AND period_end > %(at)s

-- name: add_reratings
-- Have closed periods rated anew that begin since then, however long ago they ended.
WITH wanted AS (
    SELECT * FROM unnest(%(subscriptions)s::text[], %(since)s::timestamptz[]) AS wanted (subscription, since)
), released AS (
    INSERT INTO late_releases (subscription, reason) SELECT subscription, %(reason)s FROM wanted ON CONFLICT DO NOTHING
)
INSERT INTO reratings (subscription, since, reason) SELECT subscription, since, %(reason)s FROM wanted
ON CONFLICT (subscription, made_at) DO UPDATE SET since = least(reratings.since, excluded.since)

-- name: find_summed
-- Which of some boundaries lie in windows of which their users have summed rows: these lie at the windows' starts.
SELECT DISTINCT place
FROM unnest(%(places)s::bigint[], %(users)s::text[], %(moments)s::timestamptz[]) AS boundary (place, user_id, at)
WHERE EXISTS (
    SELECT FROM events
    WHERE event_time = date_bin('15 minutes', at, 'epoch') AND events.user_id = boundary.user_id AND events > 1
)

-- name: find_summed_of_plans
-- The same for boundaries of everybody who is or will be on a plan.
SELECT place
FROM unnest(%(places)s::bigint[], %(plans)s::text[], %(moments)s::timestamptz[]) AS boundary (place, plan, at)
WHERE EXISTS (
    SELECT FROM events LEFT JOIN customer_users USING (user_id)
    WHERE event_time = date_bin('15 minutes', at, 'epoch') AND events > 1
      AND coalesce(customer_users.customer, events.user_id) IN (
        SELECT subscriptions.customer FROM subscriptions
        WHERE subscriptions.plan = boundary.plan OR EXISTS (
            SELECT FROM subscription_changes AS later
            WHERE later.subscription = subscriptions.id AND later.plan = boundary.plan
        )
    )
)
