-- How many entries were ever added to a stream. In a script because XINFO STREAM answers with two entries, of any size.
-- KEYS 1 stream     Reply: a number; 0 where there is no stream
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then return 0 end
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then return info[i + 1] end
end
return 0
