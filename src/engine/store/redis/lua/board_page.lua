-- Reads a piece of a table. Every server process has an order of its own: a cursor of another is refused, as it would leave out some.
-- KEYS 1 id → text   ARGV 1 cursor, 0 at first  2 server that gave it  3 about how many
-- Reply: {server, next cursor, {id, text, …}} | nothing: the cursor is of another server
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x%x%x%x%x%x)') or '000000'
if ARGV[1] ~= '0' and server ~= ARGV[2] then return false end
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[3])
return {server, page[1], page[2]}
