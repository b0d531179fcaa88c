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
INSERT INTO holes AS old (producer, shard, first_sequence, last_sequence, events) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (producer, shard, first_sequence) DO UPDATE SET
    last_sequence = greatest(old.last_sequence, EXCLUDED.last_sequence),
    events = greatest(old.events, EXCLUDED.events),
    accepted_at = CASE WHEN EXCLUDED.last_sequence <= old.last_sequence THEN old.accepted_at END
