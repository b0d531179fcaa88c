#!lua flags=allow-oom
-- fence: stop ingest into a generation for good, so that what it holds can be drained and replaced. Safe to repeat.
--
-- KEYS  1 state
-- ARGV  1 generation that was observed
--
-- Returns {"fenced"}, or {"generation", current or ""} when another one is open by now.

local generation = redis.call('HGET', KEYS[1], 'generation')
if generation ~= ARGV[1] then return {'generation', generation or ''} end
redis.call('HSET', KEYS[1], 'fence', '1')
return {'fenced'}
