-- Takes places of a limit over all processes, by the generic cell rate algorithm.
-- Atomic because many processes take at once. By the server's clock: theirs differ.
-- KEYS 1 '<places taken that have not come free> <µs when that was so>', with expiry
-- ARGV 1 places that come free a second  2 most at once  3 how many are wanted
-- Reply: {taken, ms until there is one more, 0 = all were taken}
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local level, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)$')
level, at = tonumber(level or 0) or 0, tonumber(at or now)
-- By another rate there may have been more of them. A clock that was set back frees none.
level = math.max(0, math.min(level, burst) - math.max(0, now - at) * rate / 1000000)
local granted = math.min(wanted, math.floor(burst - level))
level = level + granted
if granted > 0 or now < at then
  -- It goes when all have come free: then it says nothing.
  local life = math.min(math.ceil(level / rate * 1000) + 1, 1e12)
  redis.call('SET', KEYS[1], string.format('%.17g %.0f', level, now), 'PX', string.format('%.0f', life))
end
if granted == wanted then return {granted, 0} end
return {granted, math.min(math.max(1, math.ceil((level + 1 - burst) / rate * 1000)), 1e12)}
