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
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  local delayed, bodies = base .. 'delayed:' .. member, base .. 'delayed-body:' .. member
  touch(delayed, bodies, base .. 'stream:' .. member, base .. 'moved:' .. member)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, left)) do
    local body = redis.call('HGET', bodies, id)
    if body then
      local event = cjson.decode(body)
      local entry = redis.call('XADD', base .. 'stream:' .. member, '*', 'meta', event[1], 'data', event[2])
      -- Its id is older than its entry: who looks for it finds it by this.
      redis.call('ZADD', base .. 'moved:' .. member, string.match(entry, '^%d+'), id)
      redis.call('HDEL', bodies, id)
    end
    redis.call('ZREM', delayed, id)
    moved = moved + 1
    left = left - 1
  end
  local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', KEYS[1], first[2], member) else redis.call('ZREM', KEYS[1], member) end
  if left <= 0 then break end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {moved, next[2] and math.max(0, next[2] - now) or -1}
