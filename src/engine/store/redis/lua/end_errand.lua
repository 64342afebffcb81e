-- Ends an errand, if it is still that turn of it.
-- Atomic: another may take it when its lease is over.
-- KEYS 1 names: when they are due, ms  2 names → turns that run   ARGV 1 name  2 turn  3 due after ms, '' = never
-- Reply: 1 | 0 it is another turn, or was ended
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3], ARGV[1])
end
return 1
