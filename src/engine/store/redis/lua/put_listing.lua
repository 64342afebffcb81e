-- Changes a listing if it is as expected, notes that and announces it.
-- Atomic because many processes may change it; noted and announced in here, so that no change goes without its news.
-- KEYS 1 names → definitions  2 names → health  3 names: when they end, ms  4 changes  5 epoch and last change
-- ARGV 1 name  2 3 definition and health expected ('' = not there)  4 5 new ones ('' = to be removed)  6 turn  7 life ms,
--      '' = as before  8 changes kept  9 channel  10 news, '' = not to be announced
-- Reply: 1 it is as asked for, by this call or an earlier one | 0 it is something else
local name = ARGV[1]
local definition, health = redis.call('HGET', KEYS[1], name), redis.call('HGET', KEYS[2], name)
if not definition or not health then definition, health = false, false end
local function is(at) return (definition or '') == ARGV[at] and (health or '') == ARGV[at + 1] end
local function live()
  if ARGV[7] == '' then return end
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[3], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[7], name)
end

local gone = ARGV[4] == ''
if is(4) then
  if not gone then live() end
  return 1
end
if not is(2) then return 0 end
if gone then
  redis.call('HDEL', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  note(ARGV[8], name, ARGV[6], health, definition)
else
  redis.call('HSET', KEYS[1], name, ARGV[4])
  redis.call('HSET', KEYS[2], name, ARGV[5])
  live()
  if definition == ARGV[4] then
    note(ARGV[8], name, ARGV[6], ARGV[5])
  else
    note(ARGV[8], name, ARGV[6], ARGV[5], ARGV[4], definition)
  end
end
if ARGV[10] ~= '' then redis.call('PUBLISH', ARGV[9], ARGV[10]) end
return 1
