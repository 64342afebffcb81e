-- Notes where messages were found, and tells where each was found first.
-- Atomic: all who find a message at once get the same answer.
-- KEYS 1 messages of one time: message → place   ARGV 1 seconds to remember them  2… message, place
-- Reply: the place of each
local places = {}
for i = 2, #ARGV, 2 do
  local new = redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1
  places[#places + 1] = new and ARGV[i + 1] or redis.call('HGET', KEYS[1], ARGV[i])
end
-- GT does not set one on a key that has none.
redis.call('EXPIRE', KEYS[1], ARGV[1], 'NX')
redis.call('EXPIRE', KEYS[1], ARGV[1], 'GT')
return places
