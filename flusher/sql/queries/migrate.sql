-- name: create_schema
-- The schema and the record of what was applied. Safe to repeat and to run at once.
DO $$
BEGIN
    PERFORM pg_advisory_xact_lock(7386132);
    CREATE SCHEMA IF NOT EXISTS taximeter;
    CREATE TABLE IF NOT EXISTS taximeter.schema_migrations (
        number     integer     PRIMARY KEY,
        name       text        NOT NULL,
        digest     text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
END
$$

-- name: lock_migrations
-- One migration at a time, whoever runs it.
SELECT pg_advisory_xact_lock(7386132)

-- name: find_migration
-- The digest of an applied migration.
SELECT digest FROM schema_migrations WHERE number = %s

-- name: record_migration
-- Remember that a migration was applied, and its text.
INSERT INTO schema_migrations (number, name, digest) VALUES (%s, %s, %s)

-- name: last_migration
-- The newest applied migration.
SELECT coalesce(max(number), 0) FROM schema_migrations

-- name: create_ledger
-- The ledger's one row, made once.
INSERT INTO ledger (id, shards) VALUES (%(id)s, %(shards)s) ON CONFLICT DO NOTHING

-- name: create_shards
-- A row for every shard. The first token is random, so that no Redis can hold it.
INSERT INTO shards (shard, token)
SELECT shard, gen_random_uuid()::text FROM ledger, generate_series(0, ledger.shards - 1) AS shard
ON CONFLICT DO NOTHING
