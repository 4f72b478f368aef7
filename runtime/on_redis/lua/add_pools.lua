-- add_pools: give the hub pools, each a range of partitions behind all that there are.
--
-- KEYS[1]  {hub}:meta
-- ARGV     name, count, ...: the pools; one that the hub has already stays as it is, whatever count is given
-- Result   {field, value, ...} as in open
-- Fails    only as a whole; in a hub that was not created nothing is added.

local partitions = redis.call('HGET', KEYS[1], 'partitions')
if not partitions then
  return {}
end
local total, known = tonumber(partitions), {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 5) == 'pool:' then
    known[fields[i]] = true
    total = total + tonumber(string.match(fields[i + 1], ' (%d+)$'))
  end
end

-- Nothing at all where one of them differs from what there is: the caller refuses to start.
for i = 1, #ARGV, 2 do
  local there = redis.call('HGET', KEYS[1], 'pool:' .. ARGV[i])
  if there and string.match(there, ' (%d+)$') ~= ARGV[i + 1] then
    return fields
  end
end
for i = 1, #ARGV, 2 do
  local field = 'pool:' .. ARGV[i]
  if not known[field] then
    redis.call('HSET', KEYS[1], field, total .. ' ' .. ARGV[i + 1])
    total = total + tonumber(ARGV[i + 1])
  end
end
return redis.call('HGETALL', KEYS[1])
