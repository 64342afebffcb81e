-- Takes the entries of consumers whose lease is gone and makes them due; removes those consumers.
-- Atomic: a consumer whose lease is there when this runs keeps everything.
-- KEYS 1 consumers of the bucket  2 partitions of the bucket
-- ARGV 1 base P:{tag}:  2 crashes allowed  3 most entries  4 dead letter keys without the type
-- Reply: {consumers removed, entries taken, more to do (1/0), crashed: {member, group, meta, attempts}…}
-- In a cluster a key may be on its way to another server: then the script ends here, before anything was written.
local function touch(...)
  for _, key in ipairs({...}) do redis.call('EXISTS', key) end
end
local base, most = ARGV[1], tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local removed, taken, crashed = 0, 0, {}

local function bury(stream, member, group, id, attempts)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then return end
  local f = {}
  for k = 1, #entry[2], 2 do f[entry[2][k]] = entry[2][k + 1] end
  local ours = f.meta and f.data
  redis.call('XADD', ARGV[4] .. string.match(member, '^[^:]*'), '*', 'group', group, 'reason', 'crashed',
    'error', 'the process that handled it ended, ' .. ARGV[2] .. ' times', 'attempts', attempts,
    'entry', member .. ' ' .. (ours and string.match(f.first or '', '^%d+%-%d+$') or id), 'meta', ours and f.meta or '', 'data', ours and f.data or cjson.encode(f))
  crashed[#crashed + 1] = {member, group, ours and f.meta or '', attempts}
end

for _, consumer in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', base .. 'alive:' .. consumer) == 0 then
    for _, member in ipairs(redis.call('SMEMBERS', KEYS[2])) do
      local stream = base .. 'stream:' .. member
      touch(stream)
      local groups = redis.pcall('XINFO', 'GROUPS', stream)
      for _, info in ipairs(groups.err and {} or groups) do
        local group = info[2]
        local escaped = string.gsub(group, ':', '%%3A')
        local suffix = member .. ':' .. escaped
        local retry, failed = base .. 'retry:' .. suffix, base .. 'failed:' .. suffix
        touch(retry, failed, base .. 'due:' .. escaped, ARGV[4] .. string.match(member, '^[^:]*'))
        local some = false
        while true do
          local held = redis.call('XPENDING', stream, group, '-', '+', 100, consumer)
          if #held == 0 then break end
          if taken >= most then return {removed, taken, 1, crashed} end
          for _, h in ipairs(held) do
            local id = h[1]
            local noted = redis.call('HGET', failed, id) or '0 '
            local crashes = tonumber(string.match(noted, '^%d+')) + 1
            if crashes >= tonumber(ARGV[2]) then
              bury(stream, member, group, id, h[4])
              redis.call('XACK', stream, group, id)
              redis.call('HDEL', failed, id)
            else
              redis.call('HSET', failed, id, crashes .. ' ' .. 'the process that handled it ended')
              redis.call('XCLAIM', stream, group, '~retry', 0, id, 'RETRYCOUNT', h[4], 'JUSTID')
              redis.call('ZADD', retry, now, id)
              some = true
            end
            taken = taken + 1
          end
        end
        if some then redis.call('ZADD', base .. 'due:' .. escaped, now, member) end
        redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
      end
    end
    redis.call('SREM', KEYS[1], consumer)
    removed = removed + 1
  end
end
return {removed, taken, 0, crashed}
