-- Makes a consumer the one that reads a partition of an ordered group.
-- Atomic: from here on no other consumer reads it, and what it read before is not pending any more.
-- KEYS 1 stream  2 retry: id → due ms  3 failed  4 due partitions of the group  5 owner
-- ARGV 1 group  2 consumer  3 base P:{tag}:  4 member T:q  5… ids that the consumer holds
-- Reply: {1, last id handed out} | {0} others have it, or entries of it | {-1} no such group
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return {-1} end
local owner = redis.call('GET', KEYS[5])
if owner and owner ~= ARGV[2] and redis.call('EXISTS', ARGV[3] .. 'alive:' .. owner) == 1 then return {0} end

local function field(pairs, name)
  for i = 1, #pairs, 2 do if pairs[i] == name then return pairs[i + 1] end end
end

local mine = 0
for _, info in ipairs(consumers) do
  local name, pending = field(info, 'name'), field(info, 'pending')
  if name == ARGV[2] then
    mine = pending
  elseif pending > 0 and name ~= '~retry' then
    -- Of a living one that finishes, or of a dead one: its entries are taken by whoever looks after the bucket.
    return {0}
  end
end

-- Own entries that nobody knows of: replies that were lost on the wire.
if mine > 0 then
  local held = {}
  for i = 5, #ARGV do held[ARGV[i]] = true end
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local from, moved = '-', false
  while true do
    local page = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', 100, ARGV[2])
    for _, row in ipairs(page) do
      if not held[row[1]] then
        redis.call('XCLAIM', KEYS[1], ARGV[1], '~retry', 0, row[1], 'RETRYCOUNT', row[4] - 1, 'JUSTID')
        redis.call('ZADD', KEYS[2], now, row[1])
        moved = true
      end
    end
    if #page < 100 then break end
    from = '(' .. page[#page][1]
  end
  if moved then redis.call('ZADD', KEYS[4], now, ARGV[4]) end
end

redis.call('SET', KEYS[5], ARGV[2])
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if field(info, 'name') == ARGV[1] then return {1, field(info, 'last-delivered-id')} end
end
return {-1}
