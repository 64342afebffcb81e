-- Turns delayed events that are due into entries.
-- Atomic: an event waits or is an entry, never both, never neither.
-- KEYS 1 delayed partitions of the bucket   ARGV 1 base P:{tag}:  2 most
-- Reply: {moved, ms until the next or -1}
-- In a cluster a key may be on its way to another server: then the script ends here, before anything was written.
local function touch(...)
  for _, key in ipairs({...}) do redis.call('EXISTS', key) end
end
local base, left = ARGV[1], tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local moved = 0

local function fields(id, body)
  local readable, event = pcall(cjson.decode, body or '')
  if readable and type(event) == 'table' and type(event[1]) == 'string' and type(event[2]) == 'string' then
    return 'meta', event[1], 'data', event[2]
  end
  -- Written, or spoilt, by something else: each group dead-letters it as malformed.
  return 'delayed', id, 'body', body or ''
end

local function move(member)
  local delayed, bodies = base .. 'delayed:' .. member, base .. 'delayed-body:' .. member
  touch(delayed, bodies, base .. 'stream:' .. member, base .. 'moved:' .. member)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, left)) do
    local body = redis.call('HGET', bodies, id)
    local entry = redis.call('XADD', base .. 'stream:' .. member, '*', fields(id, body))
    redis.call('HDEL', bodies, id)
    redis.call('ZREM', delayed, id)
    -- Its id is older than its entry: who looks for it finds it by this. Without the note it moves all the same.
    redis.pcall('ZADD', base .. 'moved:' .. member, string.match(entry, '^%d+'), id)
    moved = moved + 1
    left = left - 1
  end
  local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', KEYS[1], first[2], member) else redis.call('ZREM', KEYS[1], member) end
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  -- One whose keys cannot be used holds up none behind it; it is tried again in a second.
  if not pcall(move, member) then redis.call('ZADD', KEYS[1], now + 1000, member) end
  if left <= 0 then break end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {moved, next[2] and math.max(0, next[2] - now) or -1}
