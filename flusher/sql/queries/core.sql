-- name: read_ledger
-- The ledger's one row: id, shards, the floors of events and of claims, and the floor that sidecars are told.
SELECT id, shards, (extract(epoch FROM nullif(event_floor, '-infinity')) * 1000000)::bigint,
       (extract(epoch FROM nullif(claim_floor, '-infinity')) * 1000000)::bigint,
       (extract(epoch FROM nullif(greatest(event_floor, event_floor_next), '-infinity')) * 1000000)::bigint
FROM ledger

-- name: read_token
-- The token of the last committed epoch of a shard, without a lock: to see whether Redis matches.
SELECT token FROM shards WHERE shard = %s

-- name: wait_for_shard
-- Let the transaction wait as long for a shard as another flusher may take to drain a large epoch.
SELECT set_config('lock_timeout', '100s', true)

-- name: lock_shard
-- The same, and the right to commit an epoch of the shard until the end of the transaction (rule 3).
SELECT token FROM shards WHERE shard = %s FOR UPDATE

-- name: lock_shard_if_free
-- The same; no row when another flusher has it.
SELECT token FROM shards WHERE shard = %s FOR UPDATE SKIP LOCKED

-- name: store_token
-- The token of the epoch that this transaction commits.
UPDATE shards SET token = %s, committed_at = now() WHERE shard = %s

-- name: read_positions
-- How far the producers have been taken on a shard.
SELECT producer, sequence, digest, events, units FROM positions WHERE shard = %s

-- name: read_open_positions
-- The same, of the producers that are not retired.
SELECT producer, sequence, digest
FROM positions JOIN producers USING (producer)
WHERE shard = %s AND retired_at IS NULL
ORDER BY producer

-- name: advance_position
-- Move a producer on along its chain. The row's constraint refuses what does not add up (rule 11).
UPDATE positions SET
    sequence = %(sequence)s, digest = %(digest)s, events = %(events)s, units = %(units)s,
    inserted_events = inserted_events + %(inserted_events)s, inserted_units = inserted_units + %(inserted_units)s,
    duplicate_events = duplicate_events + %(duplicate_events)s, duplicate_units = duplicate_units + %(duplicate_units)s,
    conflict_events = conflict_events + %(conflict_events)s, conflict_units = conflict_units + %(conflict_units)s,
    quarantined_events = quarantined_events + %(quarantined_events)s,
    quarantined_units = quarantined_units + %(quarantined_units)s,
    watermark = greatest(watermark, 'epoch'::timestamptz + %(watermark_us)s * interval '1 microsecond')
WHERE producer = %(producer)s AND shard = %(shard)s

-- name: register_producer
-- Make a producer known, with the last known one of those whose records it goes on with (rule 7), and take back that
-- it was given up (rule 14): true for a new one, false for one that returns, no row when it is known already.
INSERT INTO producers (producer, host, predecessor)
SELECT %(producer)s, %(host)s, (
    SELECT old.producer FROM producers AS old WHERE old.producer = ANY(%(predecessors)s::text[])
    ORDER BY array_position(%(predecessors)s::text[], old.producer) DESC LIMIT 1
)
ON CONFLICT (producer) DO UPDATE SET retired_at = NULL, retired_reason = NULL WHERE producers.retired_at IS NOT NULL
RETURNING xmax = 0

-- name: register_position
-- Its zero position on a shard, with the time of this clock as its first watermark (rule 6), or the earliest time in
-- its journal: one that goes on under a new id, or that a standby which took over has not heard of, has older records.
INSERT INTO positions (producer, shard, sequence, digest, events, units, watermark)
VALUES (%(producer)s, %(shard)s, 0, %(digest)s, 0, 0,
        least(now(), 'epoch'::timestamptz + %(watermark_us)s::bigint * interval '1 microsecond'))

-- name: read_position
-- How far one producer was taken on a shard.
SELECT sequence, digest, events FROM positions WHERE producer = %s AND shard = %s

-- name: read_hole_ends
-- The last records of what is missing on a shard and that nobody has accepted, where their digest is known.
SELECT producer, last_sequence, digest FROM holes WHERE shard = %s AND accepted_at IS NULL AND digest IS NOT NULL

-- name: fill_hole
-- What was missing has come after all.
UPDATE holes SET accepted_at = now(), reason = 'the records were sent after all'
WHERE producer = %s AND shard = %s AND last_sequence = %s AND accepted_at IS NULL

-- name: read_quiet_predecessors
-- Producers whose records go on under another id, and whose watermark has stood still for so long (rule 14).
SELECT producer FROM producers WHERE retired_at IS NULL
AND EXISTS (SELECT 1 FROM producers AS next WHERE next.predecessor = producers.producer)
AND greatest(registered_at, (SELECT max(watermark) FROM positions WHERE positions.producer = producers.producer))
    < now() - %s * interval '1 second'

-- name: let_go
-- A producer that has nothing left which Postgres lacks (rule 14).
UPDATE producers SET retired_at = now() WHERE producer = %s AND retired_at IS NULL

-- name: read_revisions
-- The meters under every revision.
SELECT revision, meters::text FROM revisions WHERE revision > %s ORDER BY revision

-- name: read_users_of_other_customers
-- The users whose customer has another id, for live reads.
SELECT user_id, customer FROM customer_users WHERE user_id <> customer

-- name: read_claims
-- Claims that may be met again.
SELECT claim_key, digest, covered, summed FROM claims WHERE claim_key = ANY(%s)

-- name: upsert_claims
-- New claims, and the indices that older ones cover by now; what covers more is kept for as long as a new one.
INSERT INTO claims (claim_key, digest, covered, summed, accepted_at)
SELECT key, digest, covered::int4multirange, summed::int4multirange,
       'epoch'::timestamptz + accepted_us * interval '1 microsecond'
FROM unnest(%s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::bigint[])
    AS new (key, digest, covered, summed, accepted_us)
ON CONFLICT (claim_key) DO UPDATE SET
    covered = EXCLUDED.covered, summed = EXCLUDED.summed,
    accepted_at = greatest(claims.accepted_at, EXCLUDED.accepted_at)

-- name: read_single_users
-- Those of the users with a subscription that begins, changes or ends inside a window: its periods may have to be
-- rated from their single events.
SELECT wanted.user_id
FROM unnest(%s::text[]) AS wanted (user_id) LEFT JOIN customer_users USING (user_id)
WHERE EXISTS (
    SELECT FROM subscription_boundaries AS boundary
    WHERE boundary.customer = coalesce(customer_users.customer, wanted.user_id)
      AND at <> date_bin('15 minutes', at, 'epoch')
)

-- name: copy_events
-- Events that are new as far as Redis knows. One that is there fails the whole chunk, to be compared (design 2.2).
COPY events (shard, revision, events, received_at, user_id, source, event_type, units, properties, event_time,
             fingerprint, event_key, id)
FROM STDIN (FORMAT BINARY)

-- name: create_staged
-- Where events are copied to that are compared with what is there. Lives as long as the connection.
CREATE TEMPORARY TABLE IF NOT EXISTS staged (
    place       integer NOT NULL,
    shard       integer NOT NULL,
    revision    integer NOT NULL,
    events      integer NOT NULL,
    received_at timestamptz NOT NULL,
    user_id     text    NOT NULL,
    source      text    NOT NULL,
    event_type  text    NOT NULL,
    units       numeric NOT NULL,
    properties  jsonb,
    event_time  timestamptz NOT NULL,
    fingerprint bytea   NOT NULL,
    event_key   bytea   NOT NULL,
    id          text
) ON COMMIT DELETE ROWS

-- name: clear_staged
-- Room for the next ones.
TRUNCATE staged

-- name: copy_staged
-- The events, with their places among these from 0.
COPY staged FROM STDIN (FORMAT BINARY)

-- name: insert_staged
-- Insert what is not there, of a primary key the first; answer the places of the others (the law, design 2.2).
WITH firsts AS (
    SELECT DISTINCT ON (event_time, event_key) * FROM staged ORDER BY event_time, event_key, place
), added AS (
    INSERT INTO events (shard, revision, events, received_at, user_id, source, event_type, units, properties,
                        event_time, fingerprint, event_key, id)
    SELECT shard, revision, events, received_at, user_id, source, event_type, units, properties,
           event_time, fingerprint, event_key, id
    FROM firsts
    ON CONFLICT DO NOTHING
    RETURNING event_time, event_key
)
SELECT place FROM staged
EXCEPT
SELECT place FROM firsts JOIN added USING (event_time, event_key)

-- name: read_fingerprints
-- The fingerprints of what holds the primary keys of some staged events, each looked up by its key alone.
SELECT staged.place, found.fingerprint
FROM staged CROSS JOIN LATERAL (
    SELECT fingerprint FROM events
    WHERE event_time = staged.event_time AND events.event_key = staged.event_key
) AS found
WHERE staged.place = ANY(%s)

-- name: upsert_usage
-- Add to the usage of counters; only what was inserted is ever added.
INSERT INTO usage AS old (shard, user_id, meter, dimensions, window_start, units, events)
SELECT %(shard)s, user_id, meter, dimensions::jsonb, 'epoch'::timestamptz + win * interval '15 minutes', units, events
FROM unnest(%(users)s::text[], %(meters)s::text[], %(dimensions)s::text[], %(windows)s::bigint[],
            %(units)s::numeric[], %(events)s::bigint[]) AS new (user_id, meter, dimensions, win, units, events)
ON CONFLICT (user_id, meter, window_start, dimensions)
DO UPDATE SET units = old.units + EXCLUDED.units, events = old.events + EXCLUDED.events, changed_at = now()

-- name: read_totals
-- The usage of counters by now, absolute.
SELECT wanted.user_id, wanted.meter, wanted.win, wanted.dimensions, usage.units::text, usage.events
FROM unnest(%(users)s::text[], %(meters)s::text[], %(dimensions)s::text[], %(windows)s::bigint[])
    AS wanted (user_id, meter, dimensions, win)
JOIN usage ON usage.user_id = wanted.user_id AND usage.meter = wanted.meter
    AND usage.window_start = 'epoch'::timestamptz + wanted.win * interval '15 minutes'
    AND usage.dimensions = wanted.dimensions::jsonb

-- name: plan_for_all_rows
-- Plan cursors of the transaction for reading all of their rows: by default the first tenth is what has to come soon.
SELECT set_config('cursor_tuple_fraction', '1', true)

-- name: next_day_with_usage
-- The first day, from a time on, on which a shard has usage; null where there is none.
SELECT date_trunc('day', min(window_start), 'UTC') FROM usage WHERE shard = %s AND window_start >= %s

-- name: read_day_totals
-- The usage of a shard on a day, for a new generation: a row a user, whose text is field, value, field, value ... as in
-- Redis, joined by 0x1e; only the dimensions are not in the contract's form yet.
SELECT user_id,
       string_agg(
           meter || E'\x1f' || lpad(to_hex((extract(epoch FROM window_start) / 900)::bigint), 8, '0') || E'\x1f'
           || dimensions::text || E'\x1e' || events || ' ' || trim_scale(units),
           E'\x1e'
       )
FROM usage WHERE shard = %(shard)s AND window_start >= %(start)s AND window_start < %(end)s
GROUP BY user_id

-- name: insert_conflict
-- An event that is not counted because its identity was taken, kept for the operator.
INSERT INTO event_conflicts (event_time, event_key, fingerprint, received_at, producer, shard, sequence, reason,
                             user_id, source, id, event_type, units, properties)
VALUES ('epoch'::timestamptz + %s * interval '1 microsecond', %s, %s,
        'epoch'::timestamptz + %s * interval '1 microsecond', %s, %s, %s, %s, %s, %s, %s, %s, %s, nullif(%s, '')::jsonb)

-- name: insert_quarantine
-- What was accepted and can't be counted, as it came.
INSERT INTO quarantine (producer, shard, sequence, reason, detail, record, events, units, place)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: insert_discrepancy
-- A counter on which Redis's counters and its stream disagree (rule 9).
INSERT INTO discrepancies (shard, epoch, user_id, meter, dimensions, window_start, counter_units, counter_events,
                           stream_units, stream_events)
VALUES (%s, %s, %s, %s, %s::jsonb, 'epoch'::timestamptz + %s * interval '15 minutes', %s, %s, %s, %s)

-- name: list_partitions
-- The months that events has partitions for.
SELECT substr(relname, length('events_') + 1) AS month
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'events'::regclass

-- name: lock_partitions
-- One maker of partitions at a time.
SELECT pg_advisory_xact_lock(7386135)

-- name: create_partition
-- A month of events, made beside the table and attached, so that nobody who inserts is blocked.
CREATE TABLE {table} (LIKE events INCLUDING ALL)

-- name: attach_partition
-- The second half.
ALTER TABLE events ATTACH PARTITION {table} FOR VALUES FROM ({start}) TO ({end})
