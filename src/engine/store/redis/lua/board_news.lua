-- Reads what changed for readers since a write.
-- Atomic: what is read is how things are at the write that is answered.
-- KEYS 1 agents: id → text  2 agents: number of the write that changed them  3 state   ARGV 1 write known, 0 = none
-- Reply: {last write, all (1/0), summary or nothing, {id, first line of its text, …}}
local version, floor, summary = unpack(redis.call('HMGET', KEYS[3], 'version', 'floor', 'summary'))
local function number(text) return tonumber(text or 0) or 0 end
local known = number(ARGV[1])
local agents = {}
local function add(id, text)
  local ends = string.find(text, '\n', 1, true)
  agents[#agents + 1] = id
  agents[#agents + 1] = ends and string.sub(text, 1, ends - 1) or text
end
local whole = known == 0 or known < number(floor) or known > number(version)
if whole then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do add(all[i], all[i + 1]) end
else
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf')) do
    local text = redis.call('HGET', KEYS[1], id)
    if text then add(id, text) end
  end
end
return {version or '0', whole and 1 or 0, summary, agents}
