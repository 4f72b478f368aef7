-- claim: write a new owner token, so that commits under any other are refused from here on.
--
-- KEYS[1]  {hub:p}:owner
-- ARGV     token, host
-- Result   the owner row: {field, value, ...}
-- Fails    only as a whole. A repeat under the same token keeps the epoch.

local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then epoch = epoch + 1 end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'host', ARGV[2], 'epoch', epoch, 'released', '')
return redis.call('HGETALL', KEYS[1])
