-- name: bench_clear
-- Room for another number of customers.
TRUNCATE subscriptions, usage, invoices, credit_grants CASCADE

-- name: bench_subscriptions
-- So many customers on the plan.
INSERT INTO subscriptions (id, customer, plan, start_at)
SELECT 'cus_' || lpad(n::text, 7, '0') || '/bench', 'cus_' || lpad(n::text, 7, '0'), 'bench', '2025-07-01Z'
FROM generate_series(1, %(customers)s) AS n

-- name: bench_usage
-- Ten rows of usage for each, all over the month, some with a fraction; in the order of time, as drains write them.
INSERT INTO usage (shard, user_id, meter, window_start, units, events)
SELECT 0, 'cus_' || lpad(n::text, 7, '0'), 'api_call',
       '2025-07-01Z'::timestamptz + (day * 3) * interval '1 day' + (n %% 90) * interval '15 minutes',
       (n %% 977) * day + day / 10.0, 7
FROM generate_series(0, 9) AS day, generate_series(1, %(customers)s) AS n

-- name: bench_settle
-- What autovacuum does by and by.
VACUUM (ANALYZE) subscriptions, usage, invoices, invoice_line_records, billed

-- name: bench_sum
-- What was made, to be compared with what has to be: how many invoices, lines and usage rows, and all amounts.
SELECT (SELECT count(*) FROM invoices), (SELECT count(*) FROM invoice_line_records), (SELECT count(*) FROM usage),
       (SELECT sum(total) FROM invoices)
