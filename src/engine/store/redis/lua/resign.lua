-- Ends a turn.
-- Atomic: the next may have begun.
-- KEYS 1 leader: '<turn> <who>'   ARGV 1 turn
-- Reply: 1 | 0 it was over
if string.match(redis.call('GET', KEYS[1]) or '', '^%d+') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
