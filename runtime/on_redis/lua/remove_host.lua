-- remove_host: forget a host that left or is dead, and its leadership.
--
-- KEYS     {hub}:hosts, {hub}:leader
-- ARGV     host, ms of its last beat as whoever takes it for dead has seen it ('': whenever that was)
-- Result   1; 0 if it has beaten since, or is not there
-- Fails    only as a whole. Safe to repeat.

if ARGV[2] ~= '' then
  local row = redis.call('HGET', KEYS[1], ARGV[1])
  -- Not "later than": a clock that was set back gives a living host an earlier beat.
  if not row or row:match('^%d+') ~= ARGV[2] then return 0 end
end
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
