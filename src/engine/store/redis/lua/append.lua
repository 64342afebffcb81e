-- Writes one event that is delayed or has an idempotency key. Runs inside the publisher's MULTI.
-- Atomic because key, delayed entry and stream entry must come into being together.
-- KEYS 1 stream  2 idempotency key  3 delayed: id → due ms  4 delayed: id → body  5 delayed partitions of the bucket
--      6 note on the publisher's last batch  7 where the stream is bounded: how many were refused
-- ARGV 1 event id  2 meta  3 data  4 delay ms or ''  5 idempotency window ms or ''  6 member T:q
--      7 number of the batch before this one, '' = none is on its way  8 most entries of the stream, '' = any number
-- Reply: 'stored' | 'duplicate' <first id> | 'missing' (the stream must be opened first, or the batch comes back whole)
--      | 'full' (counted beside the note until mark.lua has seen it)
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
if ARGV[7] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[7] then return {'missing'} end
if ARGV[5] ~= '' then
  local first = redis.call('GET', KEYS[2])
  if first then return {'duplicate', first} end
end
if ARGV[8] ~= '' and ARGV[4] == '' and redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[8]) then
  redis.call('HINCRBY', KEYS[7], KEYS[1], 1)
  return {'full'}
end
if ARGV[5] ~= '' then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[5])
end
if ARGV[4] ~= '' then
  local t = redis.call('TIME')
  local due = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[4]
  redis.call('ZADD', KEYS[3], due, ARGV[1])
  redis.call('HSET', KEYS[4], ARGV[1], cjson.encode({ARGV[2], ARGV[3]}))
  redis.call('ZADD', KEYS[5], 'LT', due, ARGV[6])
else
  redis.call('XADD', KEYS[1], '*', 'meta', ARGV[2], 'data', ARGV[3])
end
return {'stored'}
