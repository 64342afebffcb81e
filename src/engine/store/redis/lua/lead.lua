-- Makes a process the one that leads, unless another does, or has it lead on.
-- Atomic: of many processes one leads.
-- KEYS 1 leader: '<turn> <who>', with expiry  2 state   ARGV 1 who  2 ms from now
-- Reply: {turn, last write} | nothing: another leads
local turn, who = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (.*)$')
if turn and who ~= ARGV[1] then return false end
if turn then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  -- By the clock, so that the turns of a store that was emptied do not come again.
  local t = redis.call('TIME')
  local last = tonumber(redis.call('HGET', KEYS[2], 'turn') or 0) or 0
  turn = string.format('%.0f', math.max(t[1] * 1000000 + t[2], last + 1))
  redis.call('HSET', KEYS[2], 'turn', turn)
  redis.call('SET', KEYS[1], turn .. ' ' .. ARGV[1], 'PX', ARGV[2])
end
return {turn, redis.call('HGET', KEYS[2], 'version') or '0'}
