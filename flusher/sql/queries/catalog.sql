-- name: lock_catalog
-- One apply at a time. Readers are not held up.
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

-- name: meters_with_usage
-- Those of the names under which usage was counted.
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE EXISTS (SELECT FROM usage WHERE meter = name)

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
-- A plan under its next version, in effect from now on; never before the version that it follows.
INSERT INTO plan_versions (plan, version, effective_at, definition)
SELECT %(plan)s, coalesce(max(version), 0) + 1, greatest(clock_timestamp(), max(effective_at)), %(definition)s
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

-- name: upsert_subscription
-- Add a subscription, or change its end.
INSERT INTO subscriptions (id, customer, plan, start_at, end_at)
VALUES (%(id)s, %(customer)s, %(plan)s, %(start)s, %(end)s)
ON CONFLICT (id) DO UPDATE SET end_at = excluded.end_at

-- name: find_summed
-- Whether some users have summed rows in the window of a moment: they lie at its start.
SELECT 1 FROM events
WHERE event_time = date_bin('15 minutes', %(moment)s, 'epoch') AND user_id = ANY(%(users)s) AND events > 1
LIMIT 1
