-- Writes one event that is delayed or has an idempotency key. Runs inside the publisher's MULTI.
-- Atomic because key, delayed entry and stream entry must come into being together.
-- KEYS 1 stream  2 idempotency key  3 delayed: id → due ms  4 delayed: id → body  5 delayed partitions of the bucket
-- ARGV 1 event id  2 meta  3 data  4 delay ms or ''  5 idempotency window ms or ''  6 member T:q
-- Reply: 'stored' | 'duplicate' <first id> | 'missing' (the stream must be opened first)
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
if ARGV[5] ~= '' then
  local first = redis.call('GET', KEYS[2])
  if first then return {'duplicate', first} end
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
