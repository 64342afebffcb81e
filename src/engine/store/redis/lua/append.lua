-- Writes one batch of a publisher's events in a bucket: all of it, or nothing.
-- Atomic, and only right behind the batch before it: when one cannot be written, those that follow it come back too, so
-- that the order of the calls holds. The number noted at the end tells a publisher that lost the reply.
-- KEYS 1 number of the publisher's last batch  2… streams, then in the order of the events that need them, for each that
--      is delayed or has an idempotency key: that key, delayed: id → due ms, delayed: id → body, delayed partitions of the
--      bucket; for each noted ttl: facts of the partition
-- ARGV 1 number  2 seconds to keep it  3 number of the batch before, '' = none is on its way  4 how many streams
--      then for each event its stream's place in KEYS, meta, data, or
--        'k', stream, meta, data, event id, delay ms or '', idempotency window ms or '', member T:q
--      and before it where its ttl is the longest so far: 't', ttl ms or -1 = it never expires
-- Reply: {'ok', for each event that was not written its place and 'duplicate', first id or 'error', text}
--      | {'behind'} | {'missing', streams that must be opened first by their place…}
if ARGV[3] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[3] then return {'behind'} end
local missing = {'missing'}
local k = 2 + ARGV[4]
for i = 2, k - 1 do
  if redis.call('TYPE', KEYS[i]).ok ~= 'stream' then missing[#missing + 1] = i end
end
if #missing > 1 then return missing end

local out = {'ok'}
local function failed(n, what, text)
  out[#out + 1] = n
  out[#out + 1] = what
  out[#out + 1] = text
end

-- For an event that waits or has a key. Its keys are of a kind of their own: one of a wrong type concerns it alone.
local function append(n, at)
  local key, due_key, body_key, index = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local stream, meta, data, id, delay, window = KEYS[tonumber(ARGV[at])], unpack(ARGV, at + 1, at + 5)
  local function run(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then error(reply.err, 0) end
    return reply
  end
  local ok, text = pcall(function()
    if window ~= '' then
      local first = run('GET', key)
      if first then return first end
    end
    if delay ~= '' then
      local t = redis.call('TIME')
      local due = t[1] * 1000 + math.floor(t[2] / 1000) + delay
      run('ZADD', due_key, due, id)
      run('HSET', body_key, id, cjson.encode({meta, data}))
      run('ZADD', index, 'LT', due, ARGV[at + 6])
    else
      run('XADD', stream, '*', 'meta', meta, 'data', data)
    end
    -- Last: a key without its event would keep the event from ever being written.
    if window ~= '' then run('SET', key, id, 'PX', window) end
  end)
  if not ok then return text end
  if text then failed(n, 'duplicate', text) end
end

-- Locals and names looked up once: this loop is most of what publishing costs the server.
local write, args, last, streams = redis.pcall, ARGV, #ARGV, {}
for at = 2, 1 + ARGV[4] do streams[tostring(at)] = KEYS[at] end
local i, n = 5, 0
while i <= last do
  local first = args[i]
  if first == 't' then
    local known = redis.call('HGET', KEYS[k], 'ttl_ms_max')
    local ttl = ARGV[i + 1]
    if known ~= '-1' and (ttl == '-1' or not known or tonumber(known) < tonumber(ttl)) then
      redis.call('HSET', KEYS[k], 'ttl_ms_max', ttl)
    end
    i, k = i + 2, k + 1
  else
    local problem
    if first == 'k' then
      problem = append(n, i + 1)
      i, k = i + 8, k + 4
    else
      local reply = write('XADD', streams[first], '*', 'meta', args[i + 1], 'data', args[i + 2])
      problem = reply.err
      i = i + 3
    end
    if problem then
      -- A server that takes no writes says so at the first: nothing was done then. Should the first ones have written
      -- nothing, it says so again at the end.
      if n == 0 and not string.find(problem, '^WRONGTYPE') then return redis.error_reply(problem) end
      failed(n, 'error', problem)
    end
    n = n + 1
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return out
