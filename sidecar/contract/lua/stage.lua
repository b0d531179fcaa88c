#!lua flags=allow-oom
-- stage: write hashes of a generation that is not open yet. Safe to repeat: the values are absolute.
--
-- KEYS  1 ...  the staged state, or totals, of the new generation
-- ARGV  1 ...  for every key: when it expires (seconds since the epoch), fields: a number; of each: field, value
--
-- Returns {"staged"}.

local at = 1
for n = 1, #KEYS do
  local expires, fields = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, fields do
    redis.call('HSET', KEYS[n], ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  redis.call('EXPIREAT', KEYS[n], expires)
end
return {'staged'}
