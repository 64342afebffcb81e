-- Writes to the tables, if the writer leads and knows the last write.
-- Atomic, however much it is: nobody reads a half, nor finds one when the writer dies; and announced in here, so that no change goes
-- without its news. What goes is taken out before anything is put: so a server without memory refuses all of it, or nothing.
-- KEYS 1 agents: id → text  2 tasks  3 data  4 agents: number of the write that changed them  5 state  6 leader: '<turn> <who>'
-- ARGV 1 turn  2 last write known  3 '1' = all that is there goes, whatever was the last write  4 new summary ('' = none, '=<text>')
--      5 channel  6 news ('' = none)  7-9 how many go of each table  10-12 how many are put  13… ids of those that go, by table;
--      then id, text of those that are put
-- Reply: {1} it is there, by this call or an earlier one | {0} another leads, or nobody | {2, last write} it is another one
local version, by = unpack(redis.call('HMGET', KEYS[5], 'version', 'by'))
version = tonumber(version or 0) or 0
local number = ARGV[2] + 1
-- Also where the turn is over by now: it was not when this was written.
if version == number and by == ARGV[1] then return {1} end
if string.match(redis.call('GET', KEYS[6]) or '', '^%d+') ~= ARGV[1] then return {0} end
local whole = ARGV[3] == '1'
if not whole and version ~= tonumber(ARGV[2]) then return {2, string.format('%.0f', version)} end
number = string.format('%.0f', number)

-- Calls for so many arguments at a time as the stack holds with ease.
local at, many = 13, 1000
local function each(count, call)
  local last = at + count - 1
  while at <= last do
    local to = math.min(at + many - 1, last)
    call(at, to)
    at = to + 1
  end
end

local gone = whole
if whole then redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) end
for table = 1, 3 do
  each(tonumber(ARGV[6 + table]), function(from, to)
    local removed = redis.call('HDEL', KEYS[table], unpack(ARGV, from, to))
    if table == 1 then
      redis.call('ZREM', KEYS[4], unpack(ARGV, from, to))
      gone = gone or removed > 0
    end
  end)
end
for table = 1, 3 do
  each(2 * ARGV[9 + table], function(from, to)
    redis.call('HSET', KEYS[table], unpack(ARGV, from, to))
    if table == 1 then
      local changed = {}
      for i = from, to, 2 do
        changed[#changed + 1] = number
        changed[#changed + 1] = ARGV[i]
      end
      redis.call('ZADD', KEYS[4], unpack(changed))
    end
  end)
end
local fields = {'version', number, 'by', ARGV[1]}
if gone then
  fields[#fields + 1] = 'floor'
  fields[#fields + 1] = number
end
if ARGV[4] ~= '' then
  fields[#fields + 1] = 'summary'
  fields[#fields + 1] = string.sub(ARGV[4], 2)
end
redis.call('HSET', KEYS[5], unpack(fields))
if ARGV[6] ~= '' then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
return {1}
