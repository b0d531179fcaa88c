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
