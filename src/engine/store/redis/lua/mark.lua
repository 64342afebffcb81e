-- Ends the MULTI of a batch: notes that it was executed, and which of its streams were not there. The next batch on its
-- way asks for that, and so does the publisher when the reply was lost. Where the batch before this one is not noted as
-- whole, this one must not take effect before what comes back of that one: what it added is taken out again, before
-- anybody could see it. A stream that is not there now was not there for any event of the batch: none of them makes it.
-- KEYS 1 note on the publisher's last batch  2… streams of the batch
-- ARGV 1 number  2 seconds to keep it  3 number of the batch before, '' = none is on its way  4… how many plain entries
--      the batch has for each stream
-- Reply: '' | 'behind' (nothing was done) | ' <place of a stream that was not there>…'
local function is_there(key) return redis.call('TYPE', key).ok == 'stream' end
if ARGV[3] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[3] then
  for i = 2, #KEYS do
    local count = tonumber(ARGV[i + 2])
    if count > 0 and is_there(KEYS[i]) then
      for _, entry in ipairs(redis.call('XREVRANGE', KEYS[i], '+', '-', 'COUNT', count)) do
        -- A stream whose ids are used up took none.
        if string.sub(entry[1], 1, 20) ~= '18446744073709551615' then redis.call('XDEL', KEYS[i], entry[1]) end
      end
    end
  end
  return 'behind'
end
local missing = ''
for i = 2, #KEYS do
  if not is_there(KEYS[i]) then missing = missing .. ' ' .. (i - 2) end
end
redis.call('SET', KEYS[1], ARGV[1] .. missing, 'EX', ARGV[2])
return missing
