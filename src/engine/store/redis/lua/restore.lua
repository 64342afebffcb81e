-- Makes a lost group again: where it had been if the stream still has those entries, else at the beginning.
-- Atomic so that two members restoring at once agree.
-- KEYS 1 stream  2 partitions of the bucket  3 retry: id → due ms  4 failed   ARGV 1 member T:q  2 group  3 id up to which all was settled
-- Reply: 1 if the group was missing
redis.call('SADD', KEYS[2], ARGV[1])
local start = '0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local last_ms, last_seq = string.match(info[i + 1], '(%d+)-(%d+)')
      local ms, seq = string.match(ARGV[3], '(%d+)-(%d+)')
      -- A stream that has not come as far as the group had is another one: read all of it.
      if #last_ms > #ms or (#last_ms == #ms and (last_ms > ms or (last_ms == ms and tonumber(last_seq) >= tonumber(seq)))) then
        start = ARGV[3]
      end
    end
  end
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
return 1
