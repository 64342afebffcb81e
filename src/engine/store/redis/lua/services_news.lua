-- Ends listings whose time is over, and reads what changed since a change that is known.
-- Atomic: what is read is how things are at the place that is answered. Bounded: so many end, and so many changes are told.
-- KEYS 1 names → definitions  2 names → health  3 names: when they end, ms  4 changes  5 epoch and last change
-- ARGV 1 epoch known, '' = none  2 last change known  3 listings that may end  4 changes kept, and told at most  5 channel
--      6 news
-- Reply: {epoch or '0', last change, ms until the next one ends or -1, then 0, changes: {id, name, turn, definition, health}…
--      | 1 or, where the known change was lost, 2; names → definitions, names → health}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ended = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[3])
local changed = false
for _, name in ipairs(ended) do
  local definition, health = redis.call('HGET', KEYS[1], name), redis.call('HGET', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  if definition and health then
    redis.call('HDEL', KEYS[1], name)
    redis.call('HDEL', KEYS[2], name)
    note(ARGV[4], name, 'expired', health, definition)
    changed = true
  end
end
if changed then redis.call('PUBLISH', ARGV[5], ARGV[6]) end

local epoch = redis.call('HGET', KEYS[5], 'epoch') or '0'
local last = redis.call('HGET', KEYS[5], 'last') or '0-0'

-- The changes behind the known one, where it is the one before them and none of them is missing.
local function since(known)
  if known == last then return {} end
  -- An error: nothing can be behind a place like that.
  local entries = redis.pcall('XRANGE', KEYS[4], '(' .. known, '+', 'COUNT', ARGV[4] + 1)
  if entries.err or #entries > tonumber(ARGV[4]) then return nil end
  for _, entry in ipairs(entries) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    if fields.prev ~= known or not (fields.name and fields.turn and fields.health) then return nil end
    known = entry[1]
    entry[2] = fields
  end
  if known ~= last then return nil end
  -- Where no definition is noted it is the one before the next change of it, or as it is now where there is none.
  local before, changes = {}, {}
  for i = #entries, 1, -1 do
    local fields = entries[i][2]
    local definition = fields.definition or before[fields.name] or redis.call('HGET', KEYS[1], fields.name)
    if not definition then return nil end
    before[fields.name] = fields.was or definition
    changes[i] = {entries[i][1], fields.name, fields.turn, definition, fields.health}
  end
  return changes
end

-- Whether the known change is not there, though what was before it is: the server began anew with older data, or a replica took
-- over that had not got it. Where all before it was trimmed, that cannot be seen.
local function is_lost(known)
  local at = redis.pcall('XRANGE', KEYS[4], known, known)
  local before = redis.pcall('XRANGE', KEYS[4], '-', known, 'COUNT', 1)
  return not at.err and not before.err and #at == 0 and #before > 0
end

local changes
if ARGV[1] == '0' then
  changes = since('0-0')
elseif ARGV[1] == epoch then
  changes = since(ARGV[2])
end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local next = first[2] and math.max(0, first[2] - now) or -1
if changes then return {epoch, last, next, 0, changes} end
local kind = ARGV[1] == epoch and is_lost(ARGV[2]) and 2 or 1
return {epoch, last, next, kind, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
