-- What a partition has of an event beside its entries.
-- Atomic: an event that moves meanwhile is seen waiting or moved, never neither.
-- KEYS 1 stream  2 delayed: id → due ms  3 delayed: id → body  4 notes on moved events: ms of the entry
-- ARGV 1 event id
-- Reply: {due ms or '', body or '', ms of its entry or '', groups: {name, ms of the entry redriven for it or ''}…}
local groups = {}
local known = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, info in ipairs(known.err and {} or known) do
  groups[#groups + 1] = {info[2], redis.call('ZSCORE', KEYS[4], ARGV[1] .. ' ' .. info[2]) or ''}
end
return {
  redis.call('ZSCORE', KEYS[2], ARGV[1]) or '', redis.call('HGET', KEYS[3], ARGV[1]) or '',
  redis.call('ZSCORE', KEYS[4], ARGV[1]) or '', groups,
}
