-- release: give a partition up.
--
-- KEYS[1]  {hub:p}:owner
-- ARGV     token
-- Result   1 if this token gave it up, now or by an earlier try; 0 if it owned it no more
-- Fails    only as a whole.

local row = redis.call('HMGET', KEYS[1], 'token', 'released')
if row[1] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'token', '', 'host', '', 'released', ARGV[1])
  return 1
end
return row[2] == ARGV[1] and 1 or 0
