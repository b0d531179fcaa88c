#!lua flags=no-writes,allow-oom
-- read_entries: a chunk of the stream of the sealed epoch.
--
-- KEYS  1 state  2 stream of the sealed epoch
-- ARGV  1 generation  2 token of the epoch  3 id to read after, or "-"  4 most entries
--
-- Returns {"ok", entries as XRANGE has them}, or {"changed"} when another epoch is sealed now.

local state = redis.call('HMGET', KEYS[1], 'generation', 'sealed')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return {'changed'} end
local from = ARGV[3] == '-' and '-' or '(' .. ARGV[3]
return {'ok', redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[4])}
