-- open: create the hub if it does not exist, or only look.
--
-- KEYS[1]  {hub}:meta
-- ARGV     partitions, format, hash: for a hub that is created now; partitions 0: none is
-- Result   {partitions, format, hash} as stored, or three nils; nothing is changed in a hub that exists
-- Fails    only as a whole.

if ARGV[1] ~= '0' and redis.call('HEXISTS', KEYS[1], 'partitions') == 0 then
  redis.call('HSET', KEYS[1], 'partitions', ARGV[1], 'format', ARGV[2], 'hash', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'partitions', 'format', 'hash')
