#!lua flags=allow-oom
-- register: let a producer that is committed in Postgres start. Safe to repeat: positions are written if absent.
--
-- KEYS  1 state
-- ARGV  1 generation that was observed  2 producer  3 its position in Postgres on this shard
--
-- Returns {"registered"}, or {"generation", current or ""} when another one is open: its opening wrote the position.

local generation = redis.call('HGET', KEYS[1], 'generation')
if generation ~= ARGV[1] then return {'generation', generation or ''} end
redis.call('HSETNX', KEYS[1], 'p:' .. ARGV[2], ARGV[3])
redis.call('HSETNX', KEYS[1], 'c:' .. ARGV[2], ARGV[3])
return {'registered'}
