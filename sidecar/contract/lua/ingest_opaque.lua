#!lua
-- ingest_opaque: take a batch on, once, without looking into it (rule 13), because ingest fails on what it holds.
--
-- KEYS  1 state   hash    the shard's state: read, its position and its count of events written
--       2 stream  stream  the open epoch: one entry is added, marked with the field "o"
-- ARGV  1 ledger  2 shards  3 generation  4 producer  5 position before  6 position after
--       7 running count  8 the record  9 events in it  10 most events of an epoch
--
-- Returns {"applied", ""}, or one of {"closed"}, {"ledger", id, shards}, {"generation", current}, {"unregistered"},
-- {"position", current}, {"full"}, and then nothing was written.
--
-- The flusher decides on every event and counts; live usage has them after the next drain. May be repeated: a batch
-- is applied only onto the position that it follows (rule 1).

local state = redis.call('HMGET', KEYS[1], 'ledger', 'shards', 'generation', 'fence', 'events', 'p:' .. ARGV[4])
if not state[3] then return {'closed'} end
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return {'ledger', state[1], state[2]} end
if state[3] ~= ARGV[3] then return {'generation', state[3]} end
if state[4] then return {'closed'} end
if not state[6] then return {'unregistered'} end
if state[6] ~= ARGV[5] then return {'position', state[6]} end
local events = tonumber(ARGV[9]) + tonumber(state[5] or '0')
if events > tonumber(ARGV[10]) then return {'full'} end

redis.call('XADD', KEYS[2], '*', 'p', ARGV[4], 'a', ARGV[5], 'z', ARGV[6], 'n', ARGV[7], 't', '', 'b', ARGV[8],
  'o', '1')
redis.call('HSET', KEYS[1], 'p:' .. ARGV[4], ARGV[6], 'events', events)
return {'applied', ''}
