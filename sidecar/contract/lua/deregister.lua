#!lua flags=allow-oom
-- deregister: let a producer go that has nothing here which Postgres lacks (rule 14). Safe to repeat.
--
-- KEYS  1 state
-- ARGV  1 generation that was observed  2 producer  3 its position in Postgres
--
-- Returns {"gone"}, also where it was gone before; {"position", current} when it is further here, and
-- {"generation", current or ""} when another one is open, and then nothing was written.

local state = redis.call('HMGET', KEYS[1], 'generation', 'p:' .. ARGV[2])
if state[1] ~= ARGV[1] then return {'generation', state[1] or ''} end
if state[2] and state[2] ~= ARGV[3] then return {'position', state[2]} end
redis.call('HDEL', KEYS[1], 'p:' .. ARGV[2], 'c:' .. ARGV[2])
return {'gone'}
