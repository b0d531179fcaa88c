-- name: list_holes
-- Every hole; those that nobody has accepted first.
SELECT producer, shard, first_sequence, last_sequence, events, found_at, accepted_at, reason
FROM holes ORDER BY accepted_at NULLS FIRST, found_at, producer, shard, first_sequence

-- name: lock_hole
-- One hole, and the right to change it.
SELECT accepted_at FROM holes
WHERE producer = %(producer)s AND shard = %(shard)s AND first_sequence = %(first)s FOR UPDATE

-- name: accept_hole
-- The operator knows that the records are lost, and why.
UPDATE holes SET accepted_at = now(), reason = %(reason)s
WHERE producer = %(producer)s AND shard = %(shard)s AND first_sequence = %(first)s

-- name: list_producers
-- Every producer, those that are not retired first.
SELECT producer, host, predecessor, registered_at, retired_at, retired_reason
FROM producers ORDER BY retired_at NULLS FIRST, registered_at, producer

-- name: list_producer_positions
-- How far they were taken on every shard, and how far their watermark lies behind Postgres's clock.
SELECT producer, shard, sequence, events, watermark, extract(epoch FROM now() - watermark)::bigint
FROM positions ORDER BY producer, shard

-- name: lock_producer
-- One producer, when it was retired, how many seconds ago anything was heard of it, and the right to change it.
SELECT retired_at,
       extract(epoch FROM now() - greatest(registered_at, (
           SELECT max(watermark) FROM positions WHERE positions.producer = producers.producer
       )))::bigint
FROM producers WHERE producer = %s FOR UPDATE

-- name: retire_producer
-- An operator gives up on it (rule 14): closing a period and the proof wait for it no longer.
UPDATE producers SET retired_at = now(), retired_reason = %(reason)s WHERE producer = %(producer)s

-- name: insert_hole
-- Records that are known to be missing. A hole that grows has to be accepted anew.
INSERT INTO holes AS old (producer, shard, first_sequence, last_sequence, events, digest)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (producer, shard, first_sequence) DO UPDATE SET
    digest = CASE WHEN EXCLUDED.last_sequence > old.last_sequence THEN EXCLUDED.digest ELSE old.digest END,
    last_sequence = greatest(old.last_sequence, EXCLUDED.last_sequence),
    events = greatest(old.events, EXCLUDED.events),
    accepted_at = CASE WHEN EXCLUDED.last_sequence <= old.last_sequence THEN old.accepted_at END

-- name: list_quarantine
-- What is in quarantine, newest first; with `all` also what was decided.
SELECT quarantined, producer, shard, sequence, place, reason, detail, events, units::text, created_at, resolved_at,
       resolved_as, resolution
FROM quarantine WHERE %(all)s OR resolved_at IS NULL
ORDER BY quarantined DESC LIMIT %(limit)s

-- name: find_quarantined
-- One row of it, and the right to decide on it.
SELECT producer, shard, sequence, place, reason, record, events, units, resolved_at, resolved_as
FROM quarantine WHERE quarantined = %s FOR UPDATE

-- name: find_quarantined_shard
-- Its shard, without a lock.
SELECT shard FROM quarantine WHERE quarantined = %s

-- name: resolve_quarantined
-- What was decided, and why.
UPDATE quarantine SET resolved_at = now(), resolved_as = %(as)s, resolution = %(resolution)s
WHERE quarantined = %(quarantined)s

-- name: move_quarantined
-- Events that count under another outcome by now. The row's constraint refuses what does not add up (rule 11).
UPDATE positions SET
    inserted_events = inserted_events + %(inserted_events)s, inserted_units = inserted_units + %(inserted_units)s,
    duplicate_events = duplicate_events + %(duplicate_events)s, duplicate_units = duplicate_units + %(duplicate_units)s,
    conflict_events = conflict_events + %(conflict_events)s, conflict_units = conflict_units + %(conflict_units)s,
    quarantined_events = quarantined_events - %(moved_events)s,
    quarantined_units = quarantined_units - %(moved_units)s
WHERE producer = %(producer)s AND shard = %(shard)s

-- name: find_stored_keys
-- Which of these events are stored, at whatever time. Reads the whole primary key: asked for one record at a time.
SELECT DISTINCT event_key FROM events WHERE event_key = ANY(%s)

-- name: release_claim
-- The claim of an event that is not stored, so that it can make it anew. One as old as events that were dropped
-- stays: its event may have been one of them (rule 15).
DELETE FROM claims
WHERE claim_key = %s AND digest = %s AND covered IS NULL AND accepted_at > (SELECT event_floor FROM ledger)

-- name: release_index
-- The same for one index of a request under an Idempotency-Key. One that is counted in a summed row stays.
UPDATE claims SET covered = covered - int4multirange(int4range(%(index)s, %(index)s + 1))
WHERE claim_key = %(key)s AND digest = %(digest)s AND covered IS NOT NULL AND NOT summed @> %(index)s::integer
  AND accepted_at > (SELECT event_floor FROM ledger)
