-- Removes a consumer that has nothing pending. Atomic: DELCONSUMER would throw pending entries away.
-- KEYS 1 stream   ARGV 1 group  2 consumer     Reply: 1 removed or not there, 0 something is pending
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err then return 1 end -- no such group
if #pending > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
