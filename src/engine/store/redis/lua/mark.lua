-- Ends the MULTI of a batch: notes that it was executed, which of its streams were not there, and how many of its events
-- were refused because their stream is full. The next batch on its way asks for that, and so does the publisher when the
-- reply was lost. Where the batch before this one is not noted as whole, this one must not take effect before what comes
-- back of that one: what it added is taken out again, before anybody could see it; and so is what is beyond the number of
-- entries a stream may have. A stream that is not there now was not there for any event of the batch: none of them makes it.
-- KEYS 1 note on the publisher's last batch  2… streams of the batch; where one of them is bounded, last: how many were refused
-- ARGV 1 number  2 seconds to keep it  3 number of the batch before, '=<number>' = none is on its way, and that one was the
--      last one answered  4 how many streams  5… how many plain entries the batch has for each stream, then, where one of them is
--      bounded, how many entries each may have ('' = any number)
-- Reply: '!<number>' first where the last one noted is before the last one answered (this server has lost some), 0 = none;
--      then '' | 'behind' (nothing was done) | for each stream that was not whole ' <place>' (it was not there) or
--      ' <place>=<plain entries taken out again>+<others refused>'
local streams = tonumber(ARGV[4])
local full = KEYS[streams + 2]
local function is_there(key) return redis.call('TYPE', key).ok == 'stream' end
local function take_out(key, count)
  for _, entry in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', count)) do
    -- A stream whose ids are used up took none.
    if string.sub(entry[1], 1, 20) ~= '18446744073709551615' then redis.call('XDEL', key, entry[1]) end
  end
end
local note = redis.call('GET', KEYS[1])
local noted = tonumber(string.match(note or '0', '^%d+'))
local lost, behind = '', false
if string.sub(ARGV[3], 1, 1) == '=' then
  if noted < tonumber(string.sub(ARGV[3], 2)) then lost = '!' .. noted end
  -- It was given up, and comes late: others were sent since.
  behind = noted >= tonumber(ARGV[1])
else
  behind = note ~= ARGV[3]
end
if behind then
  for i = 2, streams + 1 do
    local count = tonumber(ARGV[i + 3])
    if count > 0 and is_there(KEYS[i]) then take_out(KEYS[i], count) end
  end
  return 'behind'
end
local broken = ''
for i = 2, streams + 1 do
  if not is_there(KEYS[i]) then
    broken = broken .. ' ' .. (i - 2)
  elseif full and ARGV[streams + i + 3] ~= '' then
    local length = redis.call('XLEN', KEYS[i])
    -- The last ones are of this batch, and plain: append.lua adds nothing to a stream that is full.
    local over = math.max(0, math.min(length - tonumber(ARGV[streams + i + 3]), tonumber(ARGV[i + 3])))
    if over > 0 then take_out(KEYS[i], over) end
    local refused = tonumber(redis.call('HGET', full, KEYS[i]) or 0)
    if over + refused > 0 then broken = string.format('%s %d=%d+%d', broken, i - 2, over, refused) end
  end
end
if full then redis.call('DEL', full) end
redis.call('SET', KEYS[1], ARGV[1] .. broken, 'EX', ARGV[2])
return lost .. broken
