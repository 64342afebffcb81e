-- Counts entries after a place. Bounded: a few hundred a call, and no more once they come to 1 MiB.
-- In a script because nothing but their ids is needed, and reading is the only way to count them.
-- KEYS 1 stream   ARGV 1 the place     Reply: {counted, place of the last one, more (1/0)}
local count, bytes, last = 0, 0, ARGV[1]
while count < 500 and bytes < 1048576 do
  local entry = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
  if not entry then return {count, last, 0} end
  for i = 1, #entry[2] do bytes = bytes + #entry[2][i] end
  count, last = count + 1, entry[1]
end
return {count, last, 1}
