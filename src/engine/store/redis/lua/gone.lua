-- Ends a deletion: the group and pattern is gone, or stays because somebody reads it after all.
-- Atomic: only the deletion that marked it does so.
-- KEYS 1 groups   ARGV 1 field  2 token of the deletion  3 it is gone (1/0)     Reply: 1, or 0 if the mark is not there
local text = redis.call('HGET', KEYS[1], ARGV[1])
local spec = text and cjson.decode(text)
if not spec or not spec.going or spec.going[1] ~= ARGV[2] then return 0 end
if ARGV[3] == '1' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  spec.going = nil
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(spec))
end
return 1
