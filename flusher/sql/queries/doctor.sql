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
