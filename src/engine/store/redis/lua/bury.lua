-- Writes dead letters and acknowledges the entries.
-- Atomic: written and acknowledged, or neither.
-- KEYS 1 stream  2 retry  3 failed  4 dead letters of the type
-- ARGV 1 group  2 consumer  3 member T:q, then for each entry: id, deliveries held, reason, error, attempts
-- Reply: for each entry 1, or 0 where it is not held as said

local out = {}
for i = 4, #ARGV, 5 do
  local id, row = ARGV[i], held(ARGV[i])
  if row and row[2] == ARGV[2] and row[4] == tonumber(ARGV[i + 1]) then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      local f = {}
      for k = 1, #entry[2], 2 do f[entry[2][k]] = entry[2][k + 1] end
      local ours = f.meta and f.data
      redis.call('XADD', KEYS[4], '*', 'group', ARGV[1], 'reason', ARGV[i + 2], 'error', ARGV[i + 3],
        'attempts', ARGV[i + 4], 'entry', ARGV[3] .. ' ' .. (ours and string.match(f.first or '', '^%d+%-%d+$') or id),
        'meta', ours and f.meta or '', 'data', ours and f.data or cjson.encode(f))
    end
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
return out
