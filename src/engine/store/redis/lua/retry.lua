-- Takes held entries from their consumer and lets them wait for redelivery under the pseudo-consumer ~retry.
-- Atomic: an entry is pending under its consumer, or waits with a due time, never neither.
-- KEYS 1 stream  2 retry: id → due ms  3 failed: id → '<crashes> <error>'  4 due partitions of the group
-- ARGV 1 group  2 consumer  3 member T:q, then for each entry: id, deliveries held, delay ms, deliveries to note,
--      error ('' keeps the one noted)
-- Reply: for each entry 1, or 0 where it is not held as said
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local out = {}
for i = 4, #ARGV, 5 do
  local id, row = ARGV[i], held(ARGV[i])
  if row and row[2] == ARGV[2] and row[4] == tonumber(ARGV[i + 1]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], '~retry', 0, id, 'RETRYCOUNT', ARGV[i + 3], 'JUSTID')
    redis.call('ZADD', KEYS[2], now + ARGV[i + 2], id)
    if ARGV[i + 4] ~= '' then
      local noted = redis.call('HGET', KEYS[3], id)
      redis.call('HSET', KEYS[3], id, (noted and string.match(noted, '^%d+') or '0') .. ' ' .. ARGV[i + 4])
    end
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if first[2] then redis.call('ZADD', KEYS[4], first[2], ARGV[3]) end
return out
