#!lua flags=allow-oom
-- stage: write hashes of a generation that is not open yet. Safe to repeat: the values are absolute.
--
-- KEYS  1 ...  the staged state, or totals, of the new generation
-- ARGV  1 ...  for every key: when it expires (seconds since the epoch), fields: a number; of each: field, value
--
-- Returns {"staged"}.

local TAKEN = 1000 -- arguments of one command: a few thousand are all that unpack can give

local at = 1
for n = 1, #KEYS do
  local expires, behind = ARGV[at], at + 2 + 2 * tonumber(ARGV[at + 1])
  at = at + 2
  while at < behind do
    local last = math.min(at + TAKEN, behind) - 1
    redis.call('HSET', KEYS[n], unpack(ARGV, at, last))
    at = last + 1
  end
  redis.call('EXPIREAT', KEYS[n], expires)
end
return {'staged'}
