-- Put before scripts whose first key is a stream, and whose first argument is a group.
-- Answers {id, owner, idle ms, deliveries} of a pending entry, or nil. An entry of a group or stream that is gone is held by
-- nobody, and so is what is no id at all: it must not hold up those behind it.
local function held(id)
  local rows = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  if rows.err then
    if string.find(rows.err, 'NOGROUP', 1, true) or string.find(rows.err, 'Invalid stream ID', 1, true) then return nil end
    error(rows)
  end
  return rows[1]
end
