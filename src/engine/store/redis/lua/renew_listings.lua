-- Puts off the end of listings.
-- Atomic with the server's clock: theirs differ. One that is not there gets no end, which the next of its name would have.
-- KEYS 1 names → health  2 names: when they end, ms   ARGV 1 ms from now  2… names
-- Reply: the names of those that are not there
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
local missing = {}
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[2], ends, ARGV[i])
  else
    missing[#missing + 1] = ARGV[i]
  end
end
return missing
