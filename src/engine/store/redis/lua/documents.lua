-- Reads the documents of a shelf, unless they are known.
-- Atomic: the documents are those of the version.
-- KEYS 1 shelf: name → text, '' → version   ARGV 1 version known, '' = none
-- Reply: nothing where the version is that one, else {name, text, …} with the version
if (redis.call('HGET', KEYS[1], '') or '0') == ARGV[1] then return false end
return redis.call('HGETALL', KEYS[1])
