-- Takes consumers off the holders of a group and pattern. The group stays, unless it ends with its last holder.
-- Atomic: of a consumer that leaves and one that joins, one sees the other.
-- KEYS 1 groups   ARGV 1 field  2 token if it ends with its last holder, else ''  3… consumers
-- Reply: 1 if it is to be deleted now, under the token; else 0
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return 0 end
local spec = cjson.decode(text)
for i = 3, #ARGV do spec.holders[ARGV[i]] = nil end
local ends = ARGV[2] ~= '' and next(spec.holders) == nil and (not spec.going or spec.going[1] == ARGV[2])
if ends then
  local t = redis.call('TIME')
  spec.going = {ARGV[2], t[1] * 1000 + math.floor(t[2] / 1000)}
end
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(spec))
return ends and 1 or 0
