#!lua
-- ingest: apply one batch, once, whole or not at all.
--
-- KEYS  1 state       hash    the shard's state: read, its position and its count of events written
--       2 stream      stream  the open epoch: one entry is added
--       3 counters    hash    the open epoch: sums and counts
--       4 index       zset    the open epoch: one member a counter, all with score 0
--       5 ...         string  one a claim, then one an event with an id: what recognises a repeat
-- ARGV  1 ledger  2 shards  3 generation  4 producer  5 position before  6 position after
--       7 running count  8 the record  9 events in it  10 seconds that a repeat is recognised
--       11 most events of an epoch  12 most fields of its counters
--       13 claims: a number; then of each: digest, covered indices as "0-4,7-7", first event, number of events
--       then: index in the request of every event, 2 bytes each, 65535 for one that no claim covers; without claims ""
--       then: place in the batch of every event with an id, 2 bytes each; then their fingerprints, 8 bytes each
--       then: group of every event, a number of 2 bytes from 0; empty when no event can be a repeat
--       then: of every group what an event of it adds, negated, to take it out again: "<counter> <limb 0> <limb 1>
--       <limb 2>" for every counter, with ";" between them and "|" between groups
--       then: counters, of each: member, events, limb 0, limb 1, limb 2
--
-- Returns {"applied", "d3,c5"}: the places of duplicates and conflicts; or one of {"closed"}, {"ledger", id, shards},
-- {"generation", current}, {"unregistered"}, {"position", current}, {"full"}, and then nothing was written.
--
-- Invariants: a batch is applied only onto the position that it follows (rule 1), so this script may be repeated;
-- everything is checked before the first write; no arithmetic is done on units (rule 18).

local state = redis.call('HMGET', KEYS[1], 'ledger', 'shards', 'generation', 'fence', 'events', 'p:' .. ARGV[4])
if not state[3] then return {'closed'} end
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return {'ledger', state[1], state[2]} end
if state[3] ~= ARGV[3] then return {'generation', state[3]} end
if state[4] then return {'closed'} end
if not state[6] then return {'unregistered'} end
if state[6] ~= ARGV[5] then return {'position', state[6]} end
local events = tonumber(ARGV[9]) + tonumber(state[5] or '0')
local fields = redis.call('HLEN', KEYS[3])
if events > tonumber(ARGV[11]) or fields > tonumber(ARGV[12]) then return {'full'} end
redis.call('XLEN', KEYS[2]) -- keys of another type fail here, where nothing is written yet
redis.call('ZCARD', KEYS[4])

local byte, sub = string.byte, string.sub
local function number_at(text, place) -- the 2-byte number at a place from 1
  local high, low = byte(text, 2 * place - 1, 2 * place)
  return high * 256 + low
end

local ttl = ARGV[10]
local taken = {} -- place -> 'd' or 'c'
local any = false
local at = 14
local claims = tonumber(ARGV[13])
local indices = ARGV[at + 4 * claims]
for claim = 1, claims do
  local digest, covered = ARGV[at], ARGV[at + 1]
  local first, count = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  local key = KEYS[4 + claim]
  local old = redis.call('SET', key, digest .. covered, 'NX', 'GET', 'EX', ttl)
  if old then
    any = true
    if sub(old, 1, 16) ~= digest then
      for place = first, first + count - 1 do taken[place] = 'c' end
    else
      local seen, fresh = {}, false
      for low, high in string.gmatch(sub(old, 17), '(%d+)%-(%d+)') do
        for index = tonumber(low), tonumber(high) do seen[index] = true end
      end
      for place = first, first + count - 1 do
        local index = number_at(indices, place + 1)
        if index ~= 65535 then
          if seen[index] then taken[place] = 'd' else fresh = true end
        end
      end
      if fresh then redis.call('SET', key, old .. ',' .. covered, 'EX', ttl) end
    end
  end
end

local places, fingerprints = ARGV[at + 1], ARGV[at + 2]
local base = 4 + claims
for n = 1, #KEYS - base do
  if not any or taken[number_at(places, n)] == nil then
    local fingerprint = sub(fingerprints, 8 * n - 7, 8 * n)
    local old = redis.call('SET', KEYS[base + n], fingerprint, 'NX', 'GET', 'EX', ttl)
    if old then
      any = true
      taken[number_at(places, n)] = old == fingerprint and 'd' or 'c'
    end
  end
end

-- A small hash is a list that every increment walks. A value of 65 bytes makes it a table for as long as it lives.
if fields == 0 then redis.call('HSET', KEYS[3], '.', string.rep('.', 65)) end
local group_of, groups, counters = ARGV[at + 3], ARGV[at + 4], at + 5
for n = counters, #ARGV, 5 do
  local member = ARGV[n]
  if redis.call('HINCRBY', KEYS[3], member .. '\31n', ARGV[n + 1]) == tonumber(ARGV[n + 1]) then
    redis.call('ZADD', KEYS[4], 0, member)
  end
  for limb = 0, 2 do
    local amount = ARGV[n + 2 + limb]
    if amount ~= '0' then redis.call('HINCRBY', KEYS[3], member .. '\31' .. limb, amount) end
  end
end

local places_taken = {}
if any then
  local adds_of = {}
  for adds in string.gmatch(groups .. '|', '([^|]*)|') do adds_of[#adds_of + 1] = adds end
  for place = 0, tonumber(ARGV[9]) - 1 do
    local how = taken[place]
    if how then
      places_taken[#places_taken + 1] = how .. place
      local adds = adds_of[number_at(group_of, place + 1) + 1]
      for counter, low, middle, high in string.gmatch(adds, '(%d+) ([^ ]+) ([^ ]+) ([^ ;]+)') do
        local member = ARGV[counters + 5 * tonumber(counter)]
        redis.call('HINCRBY', KEYS[3], member .. '\31n', -1)
        if low ~= '0' then redis.call('HINCRBY', KEYS[3], member .. '\0310', low) end
        if middle ~= '0' then redis.call('HINCRBY', KEYS[3], member .. '\0311', middle) end
        if high ~= '0' then redis.call('HINCRBY', KEYS[3], member .. '\0312', high) end
      end
    end
  end
end

if fields == 0 then redis.call('HDEL', KEYS[3], '.') end
local how = table.concat(places_taken, ',')
redis.call('XADD', KEYS[2], '*', 'p', ARGV[4], 'a', ARGV[5], 'z', ARGV[6], 'n', ARGV[7], 't', how, 'b', ARGV[8])
redis.call('HSET', KEYS[1], 'p:' .. ARGV[4], ARGV[6], 'events', events)
return {'applied', how}
