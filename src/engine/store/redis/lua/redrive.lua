-- Puts dead letters back as entries for the group that failed them.
-- Atomic: each is a dead letter or an entry, never both, never neither.
-- KEYS 1 dead letters of the type   ARGV 1 base P:{tag}:  2… ids
-- Reply: how many
-- In a cluster a key may be on its way to another server: then the script ends here, before anything was written.
local function touch(...)
  for _, key in ipairs({...}) do redis.call('EXISTS', key) end
end
local count = 0
for i = 2, #ARGV do
  local letter = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if letter then
    local f = {}
    for k = 1, #letter[2], 2 do f[letter[2][k]] = letter[2][k + 1] end
    local member, first = string.match(f.entry, '^(%S+) (%S+)$')
    local stream = ARGV[1] .. 'stream:' .. member
    touch(stream, ARGV[1] .. 'moved:' .. member)
    -- An entry that this bus did not write comes back as its dead letter says it: without metadata.
    local entry = redis.call('XADD', stream, '*', 'meta', f.meta, 'data', f.data, 'to', f.group, 'first', first)
    -- Who looks for the event finds its new entry by this.
    local ok, m = pcall(cjson.decode, f.meta)
    if ok and type(m) == 'table' and type(m.id) == 'string' then
      redis.call('ZADD', ARGV[1] .. 'moved:' .. member, string.match(entry, '^%d+'), m.id .. ' ' .. f.group)
    end
    redis.call('XDEL', KEYS[1], ARGV[i])
    count = count + 1
  end
end
return count
