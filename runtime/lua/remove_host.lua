-- remove_host: forget a host that left or is dead, and its leadership.
--
-- KEYS     {hub}:hosts, {hub}:leader
-- ARGV     host
-- Result   1
-- Fails    only as a whole. Safe to repeat.

redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
