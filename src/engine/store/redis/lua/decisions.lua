-- Says what each group of a stream did with one entry.
-- Atomic: an entry is not seen between a group's position and its pending entries.
-- KEYS 1 stream  2 dead letters of the type
-- ARGV 1 entry id  2 member T:q  3 most dead letters to look at
-- Reply: for each group {name, 'open'} | {name, 'acknowledged'} | {name, 'dead', reason, error}
local id, out = ARGV[1], {}
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return out end
local is_there = #redis.call('XRANGE', KEYS[1], id, id) > 0

local function parts(text)
  local ms, seq = string.match(text, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local ms, seq = parts(id)

-- Those who died since the entry was written. An entry that was redriven is another one.
local deaths
local function death(group)
  if not deaths then
    deaths = {}
    local place = ARGV[2] .. ' ' .. id
    for _, letter in ipairs(redis.call('XRANGE', KEYS[2], ms, '+', 'COUNT', ARGV[3])) do
      local f = {}
      for k = 1, #letter[2], 2 do f[letter[2][k]] = letter[2][k + 1] end
      if f.entry == place and f.group then deaths[f.group] = f end
    end
  end
  return deaths[group]
end

for _, row in ipairs(groups) do
  local info = {}
  for k = 1, #row, 2 do info[row[k]] = row[k + 1] end
  local last_ms, last_seq = parts(info['last-delivered-id'])
  local passed = is_there and (last_ms > ms or last_ms == ms and last_seq >= seq)
  if not passed or #redis.call('XPENDING', KEYS[1], info.name, id, id, 1) > 0 then
    out[#out + 1] = {info.name, 'open'}
  else
    local dead = death(info.name)
    out[#out + 1] = dead and {info.name, 'dead', dead.reason or '', dead.error or ''} or {info.name, 'acknowledged'}
  end
end
return out
