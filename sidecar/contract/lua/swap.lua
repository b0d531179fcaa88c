#!lua flags=allow-oom
-- swap: open a generation whose state and totals were written under its own name.
--
-- KEYS  1 state  2 staged state of the new generation
-- ARGV  1 generation that was observed and fenced, or "" where there was none  2 token: fresh, random
--
-- Returns {"swapped"}; {"generation", current or ""} when it is no longer as observed, and nothing was written;
-- {"unstaged"} when the staged state is gone.
--
-- Invariant (rule 5): only a fenced generation, or none, is replaced; nothing is applied to it after its drain.

local state = redis.call('HMGET', KEYS[1], 'generation', 'fence')
if (state[1] or '') ~= ARGV[1] or (state[1] and not state[2]) then return {'generation', state[1] or ''} end
if redis.call('EXISTS', KEYS[2]) == 0 then return {'unstaged'} end
redis.call('RENAME', KEYS[2], KEYS[1])
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[1], 'token', ARGV[2])
return {'swapped'}
