-- beat: renew a worker's record.
--
-- KEYS[1]  {hub}:workers
-- ARGV     worker, record
-- Result   1
-- Fails    only as a whole.

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
return 1
