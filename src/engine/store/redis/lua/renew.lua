-- Renews a consumer's lease in a bucket.
-- Atomic: of this and reap.lua, which ends consumers without a lease, one sees the other.
-- KEYS 1 lease  2 consumers of the bucket   ARGV 1 consumer  2 ms  3 '1' = it had the lease before
-- Reply: 1 | 0 the lease had lapsed, and somebody took over: it is not taken up again
local had = redis.call('EXISTS', KEYS[1]) == 1
local new = redis.call('SADD', KEYS[2], ARGV[1]) == 1
if ARGV[3] == '1' and not had and new then
  redis.call('SREM', KEYS[2], ARGV[1])
  return 0
end
redis.call('SET', KEYS[1], 1, 'PX', ARGV[2])
return 1
