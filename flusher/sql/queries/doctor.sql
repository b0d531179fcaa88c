-- name: doctor_server
-- What of the server matters for what is committed. A role without rights sees standbys, but not their state.
SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS in_recovery,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       (SELECT count(*) FROM pg_stat_replication) AS standbys,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS synchronous_standbys

-- name: doctor_clock
-- Seconds since the epoch by the server's clock.
SELECT extract(epoch FROM clock_timestamp())

-- name: doctor_shards
-- The token of every shard, and seconds since its last epoch was committed.
SELECT shard, token, extract(epoch FROM clock_timestamp() - committed_at)::bigint FROM shards ORDER BY shard

-- name: doctor_producers
-- Every unretired producer, and seconds that its earliest watermark lies back; null when a shard has none.
SELECT producers.producer, producers.host,
       CASE WHEN count(positions.watermark) = (SELECT shards FROM ledger)
            THEN extract(epoch FROM clock_timestamp() - min(positions.watermark))::bigint END
FROM producers LEFT JOIN positions USING (producer)
WHERE producers.retired_at IS NULL
GROUP BY producers.producer, producers.host
ORDER BY producers.producer

-- name: doctor_open
-- What an operator has to look at: open discrepancies, events in quarantine, holes that nobody has accepted.
SELECT (SELECT count(*) FROM discrepancies WHERE resolved_at IS NULL),
       (SELECT coalesce(sum(events), 0)::bigint FROM quarantine WHERE resolved_at IS NULL),
       (SELECT count(*) FROM holes WHERE accepted_at IS NULL)

-- name: doctor_claims
-- The floor of claims, how many seconds it and the ledger's birth lie back, roughly how many claims there are, the
-- oldest of them, and how many (at most `many`) wait to be dropped; null for what there is none of.
SELECT nullif(claim_floor, '-infinity'), extract(epoch FROM now() - nullif(claim_floor, '-infinity'))::bigint,
       extract(epoch FROM now() - created_at)::bigint,
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'claims'::regclass),
       (SELECT min(accepted_at) FROM claims),
       (SELECT count(*) FROM (
           SELECT FROM claims WHERE accepted_at <= (SELECT claims_dropped_to FROM ledger) LIMIT %(many)s
       ) AS waiting)
FROM ledger

-- name: doctor_last_heard
-- The unretired producer whose watermark is the oldest: floors wait for it (rule 15).
SELECT producer, host, watermark FROM positions JOIN producers USING (producer)
WHERE retired_at IS NULL ORDER BY watermark, producer LIMIT 1

-- name: doctor_events
-- The floor of events and the one that sidecars were told, since how many seconds they know, months and events that are
-- dropped.
SELECT nullif(event_floor, '-infinity'), nullif(event_floor_next, '-infinity'),
       extract(epoch FROM now() - event_floor_next_at)::bigint,
       (SELECT count(DISTINCT month) FROM dropped_events WHERE dropped_at IS NOT NULL),
       (SELECT coalesce(sum(events), 0)::bigint FROM dropped_events WHERE dropped_at IS NOT NULL)
FROM ledger

-- name: doctor_needed
-- What holds the floor of events, if anything.
SELECT needed_by, nullif(since, '-infinity') FROM events_needed ORDER BY since LIMIT 1
