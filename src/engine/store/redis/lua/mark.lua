-- Notes that a batch was executed, and which of its streams were not there: the publisher asks when the reply was lost.
-- Last command of the batch's MULTI, so that the note is there if and only if the batch was executed. A stream that is
-- not there now was not there for any event of the batch, since none of them makes it.
-- KEYS 1 number of the last batch  2 note of this one  3… streams of the batch   ARGV 1 number  2 seconds to keep it
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local missing = ''
for i = 3, #KEYS do
  if redis.call('TYPE', KEYS[i]).ok ~= 'stream' then missing = missing .. ' ' .. (i - 3) end
end
if missing ~= '' then redis.call('SET', KEYS[2], ARGV[1] .. missing, 'EX', ARGV[2]) end
return missing
