-- Makes a lost group again: where it had been if the stream is the one that it had read, else at the beginning.
-- Atomic so that two members restoring at once agree.
-- KEYS 1 stream  2 partitions of the bucket  3 retry: id → due ms  4 failed
-- ARGV 1 member T:q  2 group  3 id up to which all was settled  4 an entry that the stream had ('0-0': none is known)
-- Reply: 0 the group is there | 1 it begins anew | 2 it goes on
redis.call('SADD', KEYS[2], ARGV[1])
local start, reply = '0', 1
local function is_before(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  return tonumber(a_seq) < tonumber(b_seq)
end
if ARGV[4] ~= '0-0' and redis.call('EXISTS', KEYS[1]) == 1 then
  -- Its ids alone do not show which stream it is: one made after a loss may have passed the place where the group was,
  -- more so where the clock was set back. An entry of then, there or deleted, does. Where that one was trimmed, and
  -- everything before it, the beginning is the same place.
  local is_same = #redis.call('XRANGE', KEYS[1], ARGV[4], ARGV[4]) == 1
  if not is_same then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
      if info[i] == 'max-deleted-entry-id' then is_same = not is_before(info[i + 1], ARGV[4]) end
    end
  end
  if is_same then start, reply = ARGV[3], 2 end
end
-- What waited for its retry was pending in the group that is gone: it is read again, and everything behind it.
local low_ms, low_seq = string.match(start, '(%d+)-?(%d*)')
low_ms, low_seq = tonumber(low_ms), tonumber(low_seq) or 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms and (ms < low_ms or (ms == low_ms and seq <= low_seq)) then
    -- The place just before it. A group made there gets what comes after.
    if seq > 0 then low_ms, low_seq = ms, seq - 1 else low_ms, low_seq = ms - 1, 0 end
    start = string.format('%.0f-%.0f', low_ms, low_seq)
  end
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[2], start, 'MKSTREAM')
if made.err then return 0 end
redis.call('DEL', KEYS[3], KEYS[4])
return reply
