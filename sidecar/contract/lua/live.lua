#!lua flags=no-writes,allow-oom
-- live: what a user has used: committed totals, the sealed epoch and the open one, at one moment.
--
-- KEYS  1 state  2-3 counters, index of the open epoch  4-5 the same of the sealed epoch  6 ... totals by day
-- ARGV  1 generation  2 token of the sealed epoch, "" for none  3-4 bounds of the members, for ZRANGEBYLEX
--
-- Returns {"ok", open, sealed, totals}: open and sealed are lists of member, events, limb 0, limb 1, limb 2; totals a
-- list, a key each, of fields and values. {"again", generation or "", token or ""} when the epoch is another one.

local state = redis.call('HMGET', KEYS[1], 'generation', 'sealed')
if (state[1] or '') ~= ARGV[1] or (state[2] or '') ~= ARGV[2] then return {'again', state[1] or '', state[2] or ''} end

local function read(counters, index)
  local found = {}
  for _, member in ipairs(redis.call('ZRANGEBYLEX', index, ARGV[3], ARGV[4])) do
    local stem = member .. '\31'
    local values = redis.call('HMGET', counters, stem .. 'n', stem .. '0', stem .. '1', stem .. '2')
    found[#found + 1] = member
    for n = 1, 4 do found[#found + 1] = values[n] or '0' end
  end
  return found
end

local totals = {}
for n = 6, #KEYS do totals[#totals + 1] = redis.call('HGETALL', KEYS[n]) end
return {'ok', read(KEYS[2], KEYS[3]), ARGV[2] == '' and {} or read(KEYS[4], KEYS[5]), totals}
