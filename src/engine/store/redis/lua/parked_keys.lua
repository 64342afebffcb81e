-- The partition keys of some entries. Reads nothing else of them out, whatever their size.
-- Atomic only to cost one round trip.
-- KEYS 1 stream   ARGV ids     Reply: for each its key, '' without one, or nil when it is gone
local out = {}
for i, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  out[i] = false
  if entry then
    out[i] = ''
    for k = 1, #entry[2], 2 do
      if entry[2][k] == 'meta' then
        local ok, meta = pcall(cjson.decode, entry[2][k + 1])
        if ok and type(meta) == 'table' and type(meta.partitionKey) == 'string' then out[i] = meta.partitionKey end
      end
    end
  end
end
return out
