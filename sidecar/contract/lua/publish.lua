#!lua flags=allow-oom
-- publish: tell Redis that the sealed epoch is committed. Safe to repeat: the second time nothing is written.
--
-- KEYS  1 state  2-4 stream, counters, index of the sealed epoch  5 ... totals, one key a user and day
-- ARGV  1 generation  2 token of the epoch  3 producers: a number; then of each: name, committed position
--       then for every totals key: when it expires (seconds since the epoch), fields: a number; of each: field, value
--
-- Returns {"published"}; {"stale"} when another epoch, or none, is sealed; {"generation", current or ""}.
--
-- Invariants (rule 4): exactly that epoch is deleted, first; totals are absolute and were read in the transaction that
-- committed the epoch; positions are committed ones and stand in fields that ingest never reads.

local state = redis.call('HMGET', KEYS[1], 'generation', 'sealed')
if state[1] ~= ARGV[1] then return {'generation', state[1] or ''} end
if state[2] ~= ARGV[2] then return {'stale'} end
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'token', ARGV[2])
redis.call('HDEL', KEYS[1], 'sealed', 'follows', 'entries')
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  redis.call('HSET', KEYS[1], 'c:' .. ARGV[at], ARGV[at + 1])
  at = at + 2
end
for n = 5, #KEYS do
  local expires, fields = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, fields do
    redis.call('HSET', KEYS[n], ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  redis.call('EXPIREAT', KEYS[n], expires)
end
return {'published'}
