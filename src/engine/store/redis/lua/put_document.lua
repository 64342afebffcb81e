-- Replaces a document of a shelf if it is as expected, and announces that.
-- Atomic because many processes may change it; announced in here, so that no change goes without its news.
-- KEYS 1 shelf: name → text, '' → version
-- ARGV 1 name  2 text expected ('' = none, '=<text>')  3 new text, the same way  4 channel  5 news
-- Reply: 1 it is as asked for, by this call or an earlier one | 0 it is something else
local function text(arg) return arg ~= '' and string.sub(arg, 2) end
local found, before, after = redis.call('HGET', KEYS[1], ARGV[1]), text(ARGV[2]), text(ARGV[3])
if found == after then return 1 end
if found ~= before then return 0 end
if after then redis.call('HSET', KEYS[1], ARGV[1], after) else redis.call('HDEL', KEYS[1], ARGV[1]) end
-- By the clock, so that the versions of a store that was emptied do not come again.
local t = redis.call('TIME')
local version = math.max(t[1] * 1000000 + t[2], (tonumber(redis.call('HGET', KEYS[1], '')) or 0) + 1)
redis.call('HSET', KEYS[1], '', string.format('%.0f', version))
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
