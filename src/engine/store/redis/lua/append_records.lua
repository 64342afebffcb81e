-- Adds records to a chain, with its head, counters and times.
-- Atomic: the batch is there as a whole or not at all, so its head tells whether it is.
-- KEYS 1 records of the bucket  2 heads: chain → '<sequence> <hash>'  3 counters  4 times, ms
-- ARGV 1 chain  2 number of the first record  3 how many  4 how many counters  5… text, hash and signature ('' = none) of each record,
--      then name and amount of each counter, then name and ms of each time
-- Reply: nothing where they are there, by this call or an earlier one | the head that they do not follow
local chain, first, count, counters = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last, hash = first + count - 1, ARGV[3 + 3 * count]
local head = redis.call('HGET', KEYS[2], chain)
if head then
  local sequence, known = string.match(head, '^(%d+) (.*)$')
  sequence = tonumber(sequence)
  if sequence and (sequence > last or (sequence == last and known == hash)) then return false end
  if not sequence or sequence + 1 ~= first then return head end
end

local at = 5
for sequence = first, last do
  local fields = {'c', chain, 'n', string.format('%.0f', sequence), 'r', ARGV[at], 'h', ARGV[at + 1]}
  if ARGV[at + 2] ~= '' then
    fields[9], fields[10] = 's', ARGV[at + 2]
  end
  redis.call('XADD', KEYS[1], '*', unpack(fields))
  at = at + 3
end
redis.call('HSET', KEYS[2], chain, string.format('%.0f %s', last, hash))
for _ = 1, counters do
  -- One that is no number, or as large as any, is not to leave half a batch behind.
  redis.pcall('HINCRBY', KEYS[3], ARGV[at], ARGV[at + 1])
  at = at + 2
end
while at < #ARGV do
  local known = tonumber(redis.call('HGET', KEYS[4], ARGV[at]))
  if not known or known < tonumber(ARGV[at + 1]) then redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1]) end
  at = at + 2
end
return false
