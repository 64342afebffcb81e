-- Upkeep of one partition: moves groups past expired entries, removes what need not be kept. Or, where a length is
-- asked for, makes room: removes what every group is done with until the stream is no longer than that.
-- Atomic because what may go depends on where every group stands. Bounded: reads a few hundred entries a group at
-- most, one at a time and no more once they come to 1 MiB; whole nodes are trimmed without reading them.
-- KEYS 1 stream  2 facts  3 dead letters of the type  4 notes on moved events: ms of the entry
-- ARGV 1 acknowledged entries kept  2 default ttl ms or -1  3 dead letter retention ms  4 expired become dead letters
--      (1/0)  5 member T:q  6 how long acknowledged entries are kept, ms, '' = until their ttl is over  7 without any
--      group all entries count as acknowledged (1/0)  8 length asked for, '' = none
-- Reply: {removed, more to do (1/0), expired: {group, meta, dead-lettered (1/0)}…}
local stream, keep, member, keep_ms, asked = KEYS[1], tonumber(ARGV[1]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[8])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local removed, more, expired = 0, 0, {}

if not asked then redis.call('XTRIM', KEYS[3], 'MINID', math.max(0, now - ARGV[3])) end
local length = redis.call('XLEN', stream)
if length == 0 then
  redis.call('DEL', KEYS[4])
  return {0, 0, expired}
end

local function parse(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function before(a, b)
  local am, as = parse(a)
  local bm, bs = parse(b)
  return am < bm or (am == bm and as < bs)
end
local function after(id)
  local ms, seq = parse(id)
  return string.format('%.0f-%.0f', ms, seq + 1)
end
local function field(pairs, name)
  for i = 1, #pairs, 2 do if pairs[i] == name then return pairs[i + 1] end end
end
-- ms of life, nil for an event that never expires, and whether the publisher chose it
local function life(meta)
  local ok, m = pcall(cjson.decode, meta or '')
  if ok and type(m) == 'table' then
    local ttl = tonumber(m.ttl) or tonumber(m.dttl)
    if ttl then
      if ttl <= 0 then return nil, true end
      return ttl * 1000, tonumber(m.ttl) ~= nil
    end
  end
  local default = tonumber(ARGV[2])
  if default < 0 then return nil, false end
  return default, false
end

-- Reads one entry. Its size is known only then: reading singly keeps the bytes read by one call within bounds. Each
-- step reads at least one, so that none of them waits for the others.
local bytes = 0
local function read(from, to)
  local entry = redis.call('XRANGE', stream, from, to, 'COUNT', 1)[1]
  if entry then
    for i = 1, #entry[2] do bytes = bytes + #entry[2][i] end
  end
  return entry
end
local BYTES_MAX = 1048576

local groups = {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  groups[#groups + 1] = {
    name = field(info, 'name'), pending = field(info, 'pending'), last = field(info, 'last-delivered-id'),
    read = field(info, 'entries-read'), lag = field(info, 'lag'),
  }
end

-- 1. groups go past undelivered entries whose ttl is over
for _, g in ipairs(asked and {} or groups) do
  local past
  local count = 0
  while true do
    if count == 200 or (past and bytes >= BYTES_MAX) then
      more = 1
      break
    end
    local entry = read('(' .. (past or g.last), '+')
    if not entry then break end
    local meta, data = field(entry[2], 'meta'), field(entry[2], 'data')
    local ms, chosen = life(meta)
    if not ms or parse(entry[1]) + ms > now then break end
    past, count = entry[1], count + 1
    local ours = meta and data
    local only = ours and field(entry[2], 'to')
    if not only or only == g.name then
      local bury = not chosen and ARGV[4] == '1'
      if bury then
        local f = {}
        for i = 1, #entry[2], 2 do f[entry[2][i]] = entry[2][i + 1] end
        redis.call('XADD', KEYS[3], '*', 'group', g.name, 'reason', 'expired',
          'error', 'its ttl was over before it was delivered', 'attempts', 0,
          'entry', member .. ' ' .. (ours and string.match(f.first or '', '^%d+%-%d+$') or entry[1]),
          'meta', ours and meta or '', 'data', ours and data or cjson.encode(f))
      end
      expired[#expired + 1] = {g.name, meta or '', bury and 1 or 0}
    end
  end
  if past then
    if g.read then
      g.read = g.read + count
      redis.call('XGROUP', 'SETID', stream, g.name, past, 'ENTRIESREAD', g.read)
    else
      redis.call('XGROUP', 'SETID', stream, g.name, past)
    end
    if g.lag then g.lag = math.max(0, g.lag - count) end
    g.last = past
  end
end

-- 2. where every group stands: below the floor all is acknowledged, up to the cap all is delivered
local floor, cap, waiting
for _, g in ipairs(groups) do
  local low = after(g.last)
  if g.pending > 0 then
    local oldest = redis.call('XPENDING', stream, g.name)[2]
    if oldest and before(oldest, low) then low = oldest end
  end
  if not floor or before(low, floor) then floor = low end
  if not cap or before(g.last, cap) then cap = g.last end
  local w = g.pending + (g.lag or 0)
  if not waiting or w > waiting then waiting = w end
end

-- 3. acknowledged entries beyond the number kept: whole nodes, without reading them
local excess = 0
if floor then
  excess = asked and length - asked or length - keep - waiting
  if excess > 0 then
    local n = redis.call('XTRIM', stream, 'MINID', '~', floor, 'LIMIT', excess)
    removed, length, excess = removed + n, length - n, excess - n
    -- what is left of a node is trimmed to the exact number
    if excess > 0 and (excess <= 100 or asked) then
      local last
      local count, most = 0, math.min(excess, 100)
      while count < most and (count == 0 or bytes < BYTES_MAX) do
        local entry = read(last and '(' .. last or '-', '+')
        if not entry or not before(entry[1], floor) then break end
        last, count = entry[1], count + 1
      end
      if last then
        n = redis.call('XTRIM', stream, 'MINID', '=', after(last))
        removed, length, excess = removed + n, length - n, excess - n
        if excess > 0 and bytes >= BYTES_MAX then more = 1 end
      end
    end
  end
elseif ARGV[7] == '1' then
  excess = length - (asked or keep)
  if excess > 0 then
    local n = redis.call('XTRIM', stream, 'MAXLEN', '~', length - excess, 'LIMIT', 10000)
    if n >= 9900 then more = 1 else n = n + redis.call('XTRIM', stream, 'MAXLEN', '=', length - excess) end
    removed, length, excess = removed + n, length - n, excess - n
  end
end

-- 4. entries older than any ttl used here, or than they are kept
local longest = redis.call('HGET', KEYS[2], 'ttl_ms_max')
local default = tonumber(ARGV[2])
local horizon, old
if asked then
  horizon = nil
elseif keep_ms then
  horizon = keep_ms
elseif longest ~= '-1' and default >= 0 then
  horizon = math.max(default, tonumber(longest or 0))
end
if horizon and now > horizon then
  old = string.format('%.0f-0', now - horizon)
  local upto = (floor and before(floor, old)) and floor or old
  local n = redis.call('XTRIM', stream, 'MINID', '~', upto, 'LIMIT', 10000)
  removed, length = removed + n, length - n
  if n >= 9900 then
    more = 1
  else
    local rest = redis.call('XTRIM', stream, 'MINID', '=', upto)
    removed, length, n = removed + rest, length - rest, n + rest
  end
  excess = excess - n
end

-- 5. an old pending entry holds the floor down: the acknowledged ones behind it are taken out singly, those that are
-- too many and those that are too old
local upto = floor and excess > 0 and cap or old
if upto and floor and before(cap, upto) then upto = cap end
if upto and floor and before(floor, upto) then
  local from = redis.call('HGET', KEYS[2], 'scan')
  if not from or before(from, floor) then from = floor end
  local began = from
  local done, count = false, 0
  local gone = {}
  while not done and count < 400 and (count == 0 or bytes < BYTES_MAX) do
    local ids = {}
    while #ids < 20 and (count + #ids == 0 or bytes < BYTES_MAX) do
      local entry = read(from, upto)
      if not entry then
        done = true
        break
      end
      ids[#ids + 1] = entry[1]
      from = after(entry[1])
    end
    if #ids == 0 then break end
    count = count + #ids
    local held = {}
    for _, g in ipairs(groups) do
      if g.pending > 0 then
        local at = ids[1]
        while true do
          local page = redis.call('XPENDING', stream, g.name, at, ids[#ids], 40)
          for _, h in ipairs(page) do held[h[1]] = true end
          if #page < 40 then break end
          at = after(page[#page][1])
        end
      end
    end
    for _, id in ipairs(ids) do
      if not held[id] and (excess > #gone or (old and before(id, old))) then gone[#gone + 1] = id end
    end
  end
  if #gone > 0 then removed = removed + redis.call('XDEL', stream, unpack(gone)) end
  -- The next call goes on where this one ended, and begins again behind the last.
  if done then redis.call('HDEL', KEYS[2], 'scan') else redis.call('HSET', KEYS[2], 'scan', from) end
  if not done and #gone > 0 then more = 1 end
  -- Whoever needs room has all of them looked at, those before the place where this call began too.
  if asked and removed == 0 and (not done or began ~= floor) then more = 1 end
end

-- 6. notes on entries older than any left
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', first and '(' .. string.match(first[1], '^%d+') or '+inf')
return {removed, more, expired}
