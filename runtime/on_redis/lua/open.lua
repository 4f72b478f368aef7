-- open: create the hub if it does not exist, or only look; show what is fixed in it.
--
-- KEYS[1]  {hub}:meta
-- ARGV     partitions, format, hash: for a hub that is created now; partitions 0: none is
-- Result   {field, value, ...} as stored: these three, and "pool:<name>" = "<first> <count>" for each pool;
--          empty: there is no hub; nothing is changed in a hub that exists
-- Fails    only as a whole.

if ARGV[1] ~= '0' and redis.call('HEXISTS', KEYS[1], 'partitions') == 0 then
  redis.call('HSET', KEYS[1], 'partitions', ARGV[1], 'format', ARGV[2], 'hash', ARGV[3])
end
return redis.call('HGETALL', KEYS[1])
