-- Reads the members whose time is not over; the others go.
-- Atomic with the server's clock.
-- KEYS 1 members: until when, ms     Reply: their names
local t = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + math.floor(t[2] / 1000))
return redis.call('ZRANGE', KEYS[1], 0, -1)
