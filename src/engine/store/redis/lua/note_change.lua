-- Put before scripts whose fourth key are the changes of listings, and whose fifth says where these are: epoch, last.
-- Notes a change. Its health is always noted; its definition where that became different, with the one before (`was`), and
-- where the listing ends: so checks, which are most, are short.
local function note(kept, name, turn, health, definition, was)
  if not redis.call('HGET', KEYS[5], 'epoch') then
    -- By the clock, so that the register of a store that was emptied is another one.
    local t = redis.call('TIME')
    redis.call('HSET', KEYS[5], 'epoch', string.format('%.0f', t[1] * 1000000 + t[2]))
  end
  -- Whoever knows the change before knows that it misses none.
  local fields = {'name', name, 'turn', turn, 'health', health, 'prev', redis.call('HGET', KEYS[5], 'last') or '0-0'}
  if definition then
    fields[9], fields[10] = 'definition', definition
  end
  if was then
    fields[11], fields[12] = 'was', was
  end
  redis.call('HSET', KEYS[5], 'last', redis.call('XADD', KEYS[4], 'MAXLEN', '~', kept, '*', unpack(fields)))
end
