-- Looks for an event in a stream of entries, or of dead letters. A script so that what is looked at does not have to
-- cross; it changes nothing. Bounded: entries are read one at a time, and no more once they come to 1 MiB.
-- KEYS 1 stream
-- ARGV 1 event id  2 first place  3 last place  4 1 = towards older entries  5 the group that a redriven entry is for,
--      '' = one that was not redriven, '*' = collect all  6 most entries
-- Reply: {found: {id, fields}…, last place looked at or '' = there are no more, entries looked at}
local way = ARGV[4] == '1' and 'XREVRANGE' or 'XRANGE'
local named = '"id":"' .. ARGV[1] .. '"'
local from, bytes, looked, found = ARGV[2], 0, 0, {}
local last = ''
while looked < tonumber(ARGV[6]) and bytes < 1048576 do
  local entry = redis.call(way, KEYS[1], from, ARGV[3], 'COUNT', 1)[1]
  if not entry then return {found, '', looked} end
  last, from, looked = entry[1], '(' .. entry[1], looked + 1
  local meta, to = nil, ''
  for i = 1, #entry[2], 2 do
    local field, value = entry[2][i], entry[2][i + 1]
    bytes = bytes + #value
    if field == 'meta' then meta = value elseif field == 'to' then to = value end
  end
  if meta and (ARGV[5] == '*' or to == ARGV[5]) and string.find(meta, named, 1, true) then
    -- Headers may have an id, too.
    local ok, m = pcall(cjson.decode, meta)
    if ok and type(m) == 'table' and m.id == ARGV[1] then
      found[#found + 1] = entry
      if ARGV[5] ~= '*' then break end
    end
  end
end
return {found, last, looked}
