-- Takes or renews the lease of the one process that looks after a bucket.
-- Atomic: it is renewed only by its holder.
-- KEYS 1 keeper   ARGV 1 holder  2 lease ms     Reply: 1 held by this holder, 0 by another
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
