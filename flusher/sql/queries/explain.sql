-- name: explain_terms
-- What a subscription paid by over periods: the terms of the invoice that closed each of them, or its last part.
SELECT wanted.starts, wanted.ends, terms.definition
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS wanted (starts, ends)
CROSS JOIN LATERAL (
    SELECT terms FROM invoices
    WHERE subscription = %(subscription)s AND kind = 'period' AND period_start < wanted.ends AND period_end > wanted.starts
    ORDER BY period_start DESC LIMIT 1
) AS closing
JOIN terms USING (terms)

-- name: explain_own_terms
-- What an invoice was rated by.
SELECT definition FROM invoices JOIN terms USING (terms) WHERE id = %(invoice)s

-- name: explain_sums
-- Usage by hour, UTC, of the windows that a period touches.
SELECT date_trunc('hour', window_start, 'UTC') AS start, sum(units) AS units, sum(events)::bigint AS events
FROM usage
WHERE user_id = ANY(%(users)s) AND meter = %(meter)s AND dimensions @> %(dimensions)s::jsonb
  AND window_start >= date_bin('15 minutes', %(start)s, 'epoch') AND window_start < %(end)s
GROUP BY 1 HAVING sum(events) > 0
ORDER BY 1

-- name: explain_values
-- The same of meters whose figure is no sum: the least, the greatest and the last value of an hour, and how many
-- different ones there are.
SELECT date_trunc('hour', event_time, 'UTC') AS start, count(*)::bigint AS events, min(value) AS least,
       max(value) AS greatest, (array_agg(value ORDER BY event_time DESC, event_key DESC))[1] AS latest,
       count(DISTINCT label)::numeric AS labels
FROM usage_values
WHERE user_id = ANY(%(users)s) AND meter = %(meter)s AND dimensions @> %(dimensions)s::jsonb
  AND event_time >= %(start)s AND event_time < %(end)s
GROUP BY 1
ORDER BY 1

-- name: explain_billed
-- What was billed so far of a subscription's prices, and by which invoice last.
SELECT price, period_start, quantity, events, amount, invoice
FROM billed
WHERE subscription = %(subscription)s AND kind = 'price' AND price = ANY(%(prices)s) AND meter IS NOT NULL

-- name: explain_history
-- What each invoice billed of a subscription's prices, oldest first.
SELECT line.price, line.period_start, invoices.id AS invoice, sum(line.amount) AS amount
FROM invoice_line_records AS line JOIN invoices ON invoices.id = line.invoice
WHERE subscription = %(subscription)s AND line.price = ANY(%(prices)s) AND line.kind <> 'credit'
GROUP BY line.price, line.period_start, invoices.made_at, invoices.id
ORDER BY invoices.made_at, invoices.id
