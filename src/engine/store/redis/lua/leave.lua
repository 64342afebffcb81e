-- Takes consumers off the holders of a group and pattern. The group stays.
-- KEYS 1 groups   ARGV 1 field  2… consumers
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return 0 end
local spec = cjson.decode(text)
for i = 2, #ARGV do spec.holders[ARGV[i]] = nil end
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(spec))
return 1
