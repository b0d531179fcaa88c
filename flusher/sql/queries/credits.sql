-- name: add_grants
-- Store grants; the ids of those that were not there.
INSERT INTO credit_grants (id, customer, currency, name, kind, amount, remaining, priority, cost_basis, effective_at,
                           expires_at, granted_at)
SELECT id, customer, currency, name, kind, amount, amount, priority, cost_basis, effective_at, expires_at, granted_at
FROM unnest(%(ids)s::text[], %(customers)s::text[], %(currencies)s::text[], %(names)s::text[], %(kinds)s::text[],
            %(amounts)s::numeric[], %(priorities)s::integer[], %(cost_bases)s::numeric[],
            %(effective)s::timestamptz[], %(expires)s::timestamptz[], %(granted)s::timestamptz[])
    AS new (id, customer, currency, name, kind, amount, priority, cost_basis, effective_at, expires_at, granted_at)
ORDER BY id
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: lock_grants
-- What is left of the grants of some customers, each in a currency, for this transaction alone. Every run locks in the
-- order of the ids, so that two never wait for each other.
SELECT credit_grants.*
FROM credit_grants
JOIN unnest(%(customers)s::text[], %(currencies)s::text[]) AS wanted (customer, currency) USING (customer, currency)
WHERE remaining > 0
ORDER BY id
FOR NO KEY UPDATE OF credit_grants

-- name: record_draws
-- Store what invoices draw, and take it off the grants. A grant's constraint refuses what it has not.
WITH drawn AS (
    INSERT INTO credit_draws (invoice, grant_id, amount)
    SELECT * FROM unnest(%(invoices)s::text[], %(grants)s::text[], %(amounts)s::numeric[])
    RETURNING grant_id, amount
)
UPDATE credit_grants SET remaining = remaining - taken.amount
FROM (SELECT grant_id, sum(amount) AS amount FROM drawn GROUP BY grant_id) AS taken
WHERE id = grant_id

-- name: page_credit_customers
-- Customers with grants, after one of them where it is given.
SELECT DISTINCT customer FROM credit_grants
WHERE %(after)s::text IS NULL OR customer > %(after)s
ORDER BY customer LIMIT %(limit)s

-- name: list_grants
-- Grants of some customers, and grants by id, in the order in which a customer's are drawn.
SELECT * FROM credit_grants
WHERE customer = ANY(%(customers)s) OR id = ANY(%(grants)s)
ORDER BY customer, currency, priority, expires_at NULLS LAST, granted_at, id

-- name: list_draws
-- What invoices drew from some grants, oldest first.
SELECT grant_id, invoice, amount, invoices.made_at
FROM credit_draws JOIN invoices ON invoices.id = invoice
WHERE grant_id = ANY(%(grants)s)
ORDER BY made_at, invoice

-- name: draws_of_invoice
-- The grants that an invoice drew from.
SELECT grant_id FROM credit_draws WHERE invoice = %(invoice)s

-- name: void_grant
-- Take back what is left of a grant; no row where there is none, or where it is void already.
UPDATE credit_grants
SET voided = remaining, remaining = 0, voided_at = clock_timestamp(), void_reason = %(reason)s
WHERE id = %(grant)s AND voided_at IS NULL
RETURNING *
