-- claim: write a new owner token, so that commits under any other are refused from here on.
--
-- KEYS[1]  {hub:p}:owner
-- ARGV     token, host, how soon after the claim before an owner's death counts as one of a row (ms)
-- Result   the owner row: {field, value, ...}; deaths: how many owners in a row did not let go
-- Fails    only as a whole. A repeat under the same token keeps epoch and deaths.

local row = redis.call('HMGET', KEYS[1], 'token', 'epoch', 'claimed', 'deaths')
if row[1] ~= ARGV[1] then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local last = tonumber(row[3] or 0)
  local deaths = 0
  if row[1] and row[1] ~= '' then
    deaths = 1
    if now - last <= tonumber(ARGV[3]) then deaths = tonumber(row[4] or 0) + 1 end
  end
  redis.call('HSET', KEYS[1], 'epoch', tonumber(row[2] or 0) + 1, 'deaths', deaths,
    -- A clock that was set back would give this owner numbers that the one before has used.
    'claimed', string.format('%.0f', math.max(now, last + 1)))
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'host', ARGV[2], 'released', '')
return redis.call('HGETALL', KEYS[1])
