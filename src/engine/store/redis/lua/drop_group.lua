-- Removes a group from one partition, with all that waits in it, unless somebody reads it.
-- Atomic: a consumer whose lease is there when this runs keeps the group.
-- KEYS 1 stream  2 retry  3 failed  4 due partitions of the group  5 owner
-- ARGV 1 base P:{tag}:  2 group  3 member T:q  4 consumer that may be alive, ''  5 only look (1/0)
-- Reply: {0, consumer that is alive} | {1, whether it was there (1/0)}
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[2])
for _, info in ipairs(consumers.err and {} or consumers) do
  local name = info[2]
  if name ~= ARGV[4] and string.sub(name, 1, 1) ~= '~' and redis.call('EXISTS', ARGV[1] .. 'alive:' .. name) == 1 then
    return {0, name}
  end
end
if ARGV[5] == '1' then return {1, consumers.err and 0 or 1} end
local dropped = redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[5])
redis.call('ZREM', KEYS[4], ARGV[3])
return {1, dropped == 1 and 1 or 0}
