#!lua flags=allow-oom
-- seal: close the open epoch under a token, so that it never changes again. Safe to repeat.
--
-- KEYS  1 state  2-4 stream, counters, index of the open epoch  5-7 the same of the sealed epoch that the token names
-- ARGV  1 generation  2 token: random, for the epoch if one is sealed now
--
-- Returns {"sealed", token, token that it follows, entries}: the sealed epoch of the shard, an earlier one if there is
-- one (rule 3: one at a time); {"empty"} when nothing came; {"generation", current or ""}.

local state = redis.call('HMGET', KEYS[1], 'generation', 'token', 'sealed', 'follows', 'entries')
if state[1] ~= ARGV[1] then return {'generation', state[1] or ''} end
if state[3] then return {'sealed', state[3], state[4], state[5]} end
local entries = redis.call('XLEN', KEYS[2])
if entries == 0 then return {'empty'} end
for n = 2, 4 do
  if redis.call('EXISTS', KEYS[n]) == 1 then redis.call('RENAME', KEYS[n], KEYS[n + 3]) end
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[2], 'follows', state[2], 'entries', entries, 'events', 0)
return {'sealed', ARGV[2], state[2], tostring(entries)}
