-- sweep: forget producers that will not come back.
--
-- KEYS     producers of one partition; what it took of them twice (see commit.lua)
-- ARGV     older_ms
-- Result   how many were forgotten
-- Fails    only as a whole. Safe to repeat.
--
-- Partitions (p:<n>) are never forgotten: their sequences go on for the life of the hub, so a
-- forgotten one would find nothing but gaps. There are only so many of them. Nor are sinks (s:<name>): they
-- may be started again after years, and a forgotten one would send all its rows once more.

local time = redis.call('TIME')
local limit = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
local marks, swept = redis.call('HGETALL', KEYS[1]), 0
for i = 1, #marks, 2 do
  local seen = tonumber(string.match(marks[i + 1], '%d+$'))
  local kind = string.sub(marks[i], 1, 2)
  if seen < limit and kind ~= 'p:' and kind ~= 's:' then
    redis.call('HDEL', KEYS[1], marks[i])
    redis.call('HDEL', KEYS[2], marks[i])
    swept = swept + 1
  end
end
return swept
