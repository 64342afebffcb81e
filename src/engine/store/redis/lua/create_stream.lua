-- Notes how an event type is laid out, unless it was noted with another number of partitions.
-- Atomic because the number of partitions is decided once, by whoever asks first.
-- KEYS 1 layouts: type → layout   ARGV 1 type  2 layout  3 its partitions
-- Reply: the number of partitions noted
local text = redis.call('HGET', KEYS[1], ARGV[1])
if text then
  local noted = cjson.decode(text).partitions or 1
  if noted ~= tonumber(ARGV[3]) then return noted end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return tonumber(ARGV[3])
