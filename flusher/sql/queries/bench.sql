-- name: bench_taken
-- How many events were taken so far, whatever became of them.
SELECT coalesce(sum(events), 0)::bigint FROM positions

-- name: bench_backend
-- The process that works for the flusher which connected last, but for this connection.
SELECT pid FROM pg_stat_activity
WHERE application_name = 'taximeter' AND datname = current_database() AND pid <> pg_backend_pid()
ORDER BY backend_start DESC LIMIT 1

-- name: bench_event_bytes
-- What events take with their keys, and how many there are.
SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint, (SELECT coalesce(sum(events), 0)::bigint FROM events)
FROM pg_inherits WHERE inhparent = 'events'::regclass

-- name: bench_billable
-- Which of these users have usage by now.
SELECT user_id FROM usage WHERE user_id = ANY(%s)

-- name: bench_make_inserted
-- A table shaped like events, key and checks included, for the staging insert.
CREATE TABLE bench_inserted (LIKE events INCLUDING ALL)

-- name: bench_make_copied
-- Another one, for COPY alone.
CREATE TABLE bench_copied (LIKE events INCLUDING ALL)

-- name: bench_make_staged
-- Where rows are copied to first.
CREATE TEMPORARY TABLE bench_staged (LIKE events) ON COMMIT DELETE ROWS

-- name: bench_copy_staged
-- Rows that are ready.
COPY bench_staged FROM STDIN

-- name: bench_insert_staged
-- What is new of them.
INSERT INTO bench_inserted SELECT * FROM bench_staged ON CONFLICT DO NOTHING

-- name: bench_copy
-- Rows that are ready, without asking what is there.
COPY bench_copied FROM STDIN

-- name: bench_drop
-- Leave nothing behind.
DROP TABLE bench_inserted, bench_copied, bench_staged

-- name: bench_make_article
-- The table of an endpoint that stores an event a request.
CREATE TABLE IF NOT EXISTS public.bench_usage_events (
    id         bigserial   PRIMARY KEY,
    user_id    text        NOT NULL,
    event_type text        NOT NULL,
    units      numeric     NOT NULL,
    event_time timestamptz NOT NULL
)

-- name: bench_insert_article
-- An event.
INSERT INTO public.bench_usage_events (user_id, event_type, units, event_time) VALUES (%s, %s, %s, %s)
