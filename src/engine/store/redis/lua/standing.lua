-- Where groups stand on entries.
-- Atomic: an entry that is settled or handed on meanwhile is told as before or as after.
-- KEYS 1 stream   ARGV 1 base P:{tag}:  2 member T:q, then for each: group, entry id
-- Reply: for each group that is there {name, 'new' | 'held' | 'waiting' | 'settled', consumer, deliveries,
--        '<crashes> <error>' or '', due ms or ''}
local function parse(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function before(a, b)
  local am, as = parse(a)
  local bm, bs = parse(b)
  return am < bm or (am == bm and as < bs)
end

local last = {}
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, info in ipairs(groups.err and {} or groups) do
  for i = 1, #info, 2 do
    if info[i] == 'last-delivered-id' then last[info[2]] = info[i + 1] end
  end
end

local out = {}
for i = 3, #ARGV, 2 do
  local group, id = ARGV[i], ARGV[i + 1]
  if last[group] then
    local row = redis.call('XPENDING', KEYS[1], group, id, id, 1)[1]
    if row then
      local suffix = ARGV[2] .. ':' .. string.gsub(group, ':', '%%3A')
      local noted = redis.call('HGET', ARGV[1] .. 'failed:' .. suffix, id) or ''
      if row[2] == '~retry' then
        local due = redis.call('ZSCORE', ARGV[1] .. 'retry:' .. suffix, id) or ''
        out[#out + 1] = {group, 'waiting', '', row[4], noted, due}
      else
        out[#out + 1] = {group, 'held', row[2], row[4], noted, ''}
      end
    else
      out[#out + 1] = {group, before(last[group], id) and 'new' or 'settled', '', 0, '', ''}
    end
  end
end
return out
