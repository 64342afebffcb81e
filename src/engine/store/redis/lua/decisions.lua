-- Says what each group of a stream did with one entry.
-- Atomic: an entry is not seen between a group's position and its pending entries.
-- KEYS 1 stream  2 dead letters of the type
-- ARGV 1 entry id  2 member T:q  3 most dead letters to look at
-- Reply: for each group {name, 'open'}, also when there are more dead letters than were looked at | {name, 'acknowledged'} | {name, 'dead', reason, error}
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
-- They are read singly, as the size of one is known only then. `known`: all of them were looked at.
local deaths, known
local function death(group)
  if not deaths then
    deaths, known = {}, false
    local place, from, bytes = ARGV[2] .. ' ' .. id, ms, 0
    for _ = 1, tonumber(ARGV[3]) do
      local letter = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1)[1]
      known = not letter
      if known or bytes >= 1048576 then break end
      local f = {}
      for k = 1, #letter[2], 2 do
        f[letter[2][k]] = letter[2][k + 1]
        bytes = bytes + #letter[2][k + 1]
      end
      if f.entry == place and f.group then deaths[f.group] = f end
      from = '(' .. letter[1]
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
    out[#out + 1] = dead and {info.name, 'dead', dead.reason or '', dead.error or ''}
      or {info.name, known and 'acknowledged' or 'open'}
  end
end
return out
