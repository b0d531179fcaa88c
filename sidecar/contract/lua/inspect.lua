#!lua flags=no-writes,allow-oom
-- inspect: everything of a shard that is not in Postgres yet, at one moment, for the proof.
--
-- KEYS  1 state  2-3 stream, counters of the open epoch  4-5 the same of the sealed epoch
-- ARGV  1 generation  2 token of the sealed epoch, "" for none
--
-- Returns {"ok", state, open entries, open counters, sealed entries, sealed counters}, hashes as fields and values;
-- {"again", generation or "", token or ""} when the epoch is another one.

local state = redis.call('HMGET', KEYS[1], 'generation', 'sealed')
if (state[1] or '') ~= ARGV[1] or (state[2] or '') ~= ARGV[2] then return {'again', state[1] or '', state[2] or ''} end
local sealed = ARGV[2] ~= ''
return {
  'ok', redis.call('HGETALL', KEYS[1]),
  redis.call('XRANGE', KEYS[2], '-', '+'), redis.call('HGETALL', KEYS[3]),
  sealed and redis.call('XRANGE', KEYS[4], '-', '+') or {}, sealed and redis.call('HGETALL', KEYS[5]) or {},
}
