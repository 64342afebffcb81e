-- Removes the oldest records of a bucket, notes where their chains begin from then on, and forgets chains of which nothing
-- is left.
-- Atomic: at any time a chain goes on right behind its anchor. Bounded: reads one record at a time, and no more once they
-- come to 1 MiB.
-- KEYS 1 records  2 heads: chain → '<sequence> <hash>'  3 anchors: the same of the last record removed  4 chains with an
--      anchor: ms of that record
-- ARGV 1 records written before this go, ms  2 how many stay at most  3 how many go by one call, and how many chains
-- Reply: {removed, more to do (1/0)}
local before, most, steps = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local length, removed, bytes, more = redis.call('XLEN', KEYS[1]), 0, 0, 0
local last
local anchors = {}
while true do
  local entry = redis.call('XRANGE', KEYS[1], last and '(' .. last or '-', '+', 'COUNT', 1)[1]
  local ms = entry and tonumber(string.match(entry[1], '^%d+'))
  if not entry or (ms >= before and length - removed <= most) then break end
  if removed == steps or (removed > 0 and bytes >= 1048576) then
    more = 1
    break
  end
  last, removed = entry[1], removed + 1
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
    bytes = bytes + #entry[2][i + 1]
  end
  -- What is none of ours just goes.
  if fields.c and fields.h and string.match(fields.n or '', '^%d+$') then
    anchors[fields.c] = {fields.n .. ' ' .. fields.h, ms}
  end
end
if removed > 0 then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', length - removed)
  for chain, anchor in pairs(anchors) do
    redis.call('HSET', KEYS[3], chain, anchor[1])
    redis.call('ZADD', KEYS[4], anchor[2], chain)
  end
end

local function sequence(place) return tonumber(string.match(place or '', '^%d+')) end
local old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[1], 'LIMIT', 0, steps)
for _, chain in ipairs(old) do
  local head, anchor = sequence(redis.call('HGET', KEYS[2], chain)), sequence(redis.call('HGET', KEYS[3], chain))
  if anchor and (not head or head <= anchor) then
    redis.call('HDEL', KEYS[2], chain)
    redis.call('HDEL', KEYS[3], chain)
  end
  -- One that goes on comes back with its next record that is removed.
  redis.call('ZREM', KEYS[4], chain)
end
if #old == steps then more = 1 end
return {removed, more}
