-- Notes a ttl longer than any seen in this partition, so that upkeep keeps acknowledged entries long enough.
-- Atomic because two publishers may raise it at once.
-- KEYS 1 facts of the partition   ARGV 1 ttl ms, -1 = an event that never expires
local known = redis.call('HGET', KEYS[1], 'ttl_ms_max')
if known ~= '-1' and (ARGV[1] == '-1' or not known or tonumber(known) < tonumber(ARGV[1])) then
  redis.call('HSET', KEYS[1], 'ttl_ms_max', ARGV[1])
end
return 1
