-- Marks a group and pattern as being deleted, unless it has other holders than those found dead.
-- Atomic because holders come and go in many processes: whoever joins from now on waits until it is gone.
-- KEYS 1 groups   ARGV 1 field  2 token of this deletion  3… holders found dead
-- Reply: {0, holder} | {1} (marked) | {2} (there is none) | {3} (another deletion is under way)
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return {2} end
local spec = cjson.decode(text)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if spec.going and spec.going[1] ~= ARGV[2] and now - spec.going[2] < 10000 then return {3} end
for i = 3, #ARGV do spec.holders[ARGV[i]] = nil end
local holder = next(spec.holders)
if holder then return {0, holder} end
spec.going = {ARGV[2], now}
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(spec))
return {1}
