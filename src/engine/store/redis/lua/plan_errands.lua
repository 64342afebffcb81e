-- Plans errands where none is planned.
-- Atomic with the server's clock: theirs differ.
-- KEYS 1 names: when they are due, ms   ARGV name, ms from now, …
-- Reply: nothing
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'NX', now + ARGV[i + 1], ARGV[i]) end
return false
