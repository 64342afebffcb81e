-- Makes a partition's stream with the given groups at its beginning.
-- Atomic so that no event can enter the stream before its groups are there.
-- KEYS 1 stream  2 partitions of the bucket   ARGV 1 member T:q  2… groups
-- Reply: 1 if the stream is new
redis.call('SADD', KEYS[2], ARGV[1])
local new = redis.call('EXISTS', KEYS[1]) == 0
if new then
  -- A stream without entries comes into being with its first group only.
  redis.call('XGROUP', 'CREATE', KEYS[1], '~open', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], '~open')
end
for i = 2, #ARGV do
  redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[i], '0') -- BUSYGROUP: it is there already
end
return new and 1 or 0
