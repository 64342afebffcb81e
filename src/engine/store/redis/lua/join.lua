-- Notes a consumer as holder of a group and pattern, if its options are those of the other holders.
-- Atomic because holders come and go in many processes.
-- KEYS 1 groups: '<group> <pattern>' → {options, holders: consumer → joined ms, going: {token, ms} while it is deleted}
-- ARGV 1 field  2 options  3 consumer  4… holders known to be dead, to be dropped
-- Reply: {1, new (1/0), holders} | {2} (it is being deleted: ask again) | {0, options in force, holder, joined ms, …}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local text = redis.call('HGET', KEYS[1], ARGV[1])
local spec = text and cjson.decode(text) or {options = ARGV[2], holders = {}}
-- A deletion that takes longer than that has been given up by its process.
if spec.going and now - spec.going[2] < 10000 then return {2} end
spec.going = nil
for i = 4, #ARGV do spec.holders[ARGV[i]] = nil end
if spec.options ~= ARGV[2] then
  local others = {0, spec.options}
  for consumer, joined in pairs(spec.holders) do
    if consumer ~= ARGV[3] then
      others[#others + 1] = consumer
      others[#others + 1] = tostring(now - joined)
    end
  end
  if #others > 2 then return others end
  spec.options = ARGV[2]
end
spec.holders[ARGV[3]] = now
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(spec))
local count = 0
for _ in pairs(spec.holders) do count = count + 1 end
return {1, text and 0 or 1, count}
