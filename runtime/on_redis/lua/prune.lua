-- prune: forget workers that are gone for long.
--
-- KEYS[1]  {hub}:workers
-- ARGV     older_ms, worker, worker, ...
-- Result   how many were forgotten: those that have not beaten since, not even just now
-- Fails    only as a whole. Safe to repeat.

local time = redis.call('TIME')
local limit = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
local pruned = 0
for i = 2, #ARGV do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  if row and tonumber(string.match(row, '^%d+')) < limit then
    pruned = pruned + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return pruned
