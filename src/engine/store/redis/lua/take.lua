-- Reads new entries of an ordered group, from partitions that are the consumer's alone.
-- Atomic: a read that arrives late, after another consumer took the partition, takes nothing.
-- KEYS the streams, then the owner of each   ARGV 1 group  2 consumer  3 most entries of each
-- Reply: that of XREADGROUP, or the error NOTOWNER
local count = #KEYS / 2
local read = {'XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS'}
for i = 1, count do
  if redis.call('GET', KEYS[count + i]) ~= ARGV[2] then return redis.error_reply('NOTOWNER ' .. KEYS[i]) end
  read[#read + 1] = KEYS[i]
end
for _ = 1, count do read[#read + 1] = '>' end
return redis.call(unpack(read))
