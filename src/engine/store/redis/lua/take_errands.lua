-- Takes errands that are due, for some time; those of what is not listed are dropped.
-- Atomic: of many processes one takes each. Bounded: looks at so many.
-- KEYS 1 names: when they are due, ms  2 names → turns that run  3 names → health of what is listed  4 last turn
-- ARGV 1 how many  2 lease ms  3 how many are looked at
-- Reply: {ms until the next one is due or -1, name, turn, …}
local most, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- By the clock, so that those of a store that was emptied do not come again.
local turn = math.max(t[1] * 1000000 + t[2], tonumber(redis.call('HGET', KEYS[4], 'turn') or 0) or 0)
local taken = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  if not redis.call('HGET', KEYS[3], name) then
    redis.call('ZREM', KEYS[1], name)
    redis.call('HDEL', KEYS[2], name)
  elseif #taken < 2 * most then
    turn = turn + 1
    local text = string.format('%.0f', turn)
    redis.call('HSET', KEYS[2], name, text)
    redis.call('ZADD', KEYS[1], now + lease, name)
    taken[#taken + 1] = name
    taken[#taken + 1] = text
  end
end
if #taken > 0 then redis.call('HSET', KEYS[4], 'turn', string.format('%.0f', turn)) end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {first[2] and math.max(0, first[2] - now) or -1, unpack(taken)}
