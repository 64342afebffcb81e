-- Gives up a partition of an ordered group.
-- Atomic: what went to another consumer stays there.
-- KEYS 1 owner   ARGV 1 consumer     Reply: 1 given up, 0 it was not this consumer's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
