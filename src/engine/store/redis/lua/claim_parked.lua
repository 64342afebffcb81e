-- Gives waiting entries of an ordered group to the consumer that owns the partition; each counts as a delivery.
-- Atomic: one owner per pending entry, and none but the partition's.
-- KEYS 1 stream  2 retry  3 failed  4 due partitions of the group  5 owner
-- ARGV 1 group  2 consumer  3 member T:q  4… ids
-- Reply: nil when the partition is another's, or the group is gone | {entries: {id, deliveries, crashes, fields}…}, {ids whose content is gone}
if redis.call('GET', KEYS[5]) ~= ARGV[2] then return false end
-- What waits in a group that is gone has to stay noted: making the group again begins with it.
if redis.pcall('XPENDING', KEYS[1], ARGV[1]).err then return false end

local entries, lost = {}, {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local row = held(id)
  redis.call('ZREM', KEYS[2], id)
  if row and row[2] == ARGV[2] then
    -- The same call before: its reply was lost.
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      local noted = redis.call('HGET', KEYS[3], id)
      entries[#entries + 1] = {id, row[4], tonumber(noted and string.match(noted, '^%d+') or 0), entry[2]}
    end
  elseif row and row[2] == '~retry' then
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', row[4] + 1)[1]
    if entry then
      local noted = redis.call('HGET', KEYS[3], id)
      entries[#entries + 1] = {id, row[4] + 1, tonumber(noted and string.match(noted, '^%d+') or 0), entry[2]}
    else
      redis.call('XACK', KEYS[1], ARGV[1], id)
      redis.call('HDEL', KEYS[3], id)
      lost[#lost + 1] = id
    end
  elseif not row then
    redis.call('HDEL', KEYS[3], id) -- acknowledged late by the consumer that had failed it
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if first[2] then redis.call('ZADD', KEYS[4], first[2], ARGV[3]) else redis.call('ZREM', KEYS[4], ARGV[3]) end
return {entries, lost}
