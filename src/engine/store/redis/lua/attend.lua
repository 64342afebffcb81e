-- Notes members for some time; those whose time is over go.
-- Atomic with the server's clock: theirs differ.
-- KEYS 1 members: until when, ms   ARGV 1 ms from now  2… members
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
return 1
