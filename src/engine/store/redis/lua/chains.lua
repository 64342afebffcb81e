-- Reads where the chains of a bucket begin and end.
-- Atomic: an anchor is never behind its head, nor is one seen without the other.
-- KEYS 1 heads  2 anchors     Reply: {heads: {chain, '<sequence> <hash>', …}, anchors: the same}
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
