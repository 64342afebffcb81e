-- How many entries were ever added to a stream. In a script because XINFO STREAM answers with two entries, of any size.
-- KEYS 1 stream     Reply: a number; 0 where there is no stream
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then return info[i + 1] end
end
return 0
