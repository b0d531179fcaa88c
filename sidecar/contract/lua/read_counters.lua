#!lua flags=no-writes,allow-oom
-- read_counters: a chunk of the counters of the sealed epoch. A field may come more than once.
--
-- KEYS  1 state  2 counters of the sealed epoch
-- ARGV  1 generation  2 token of the epoch  3 cursor, first "0"  4 about how many fields
--
-- Returns {"ok", next cursor, fields and values}, "0" as the cursor at the end; or {"changed"}. A key of another type
-- holds no counters: the stream tells the difference (rule 9).

local state = redis.call('HMGET', KEYS[1], 'generation', 'sealed')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return {'changed'} end
if redis.call('TYPE', KEYS[2])['ok'] ~= 'hash' then return {'ok', '0', {}} end
local chunk = redis.call('HSCAN', KEYS[2], ARGV[3], 'COUNT', ARGV[4])
return {'ok', chunk[1], chunk[2]}
