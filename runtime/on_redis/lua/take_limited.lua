-- take_limited: hand new entries of one queue to a worker, by priority and within the queue's limits.
--
-- KEYS     limits, meter, the queue's lanes from the most urgent to the least
-- ARGV     group, worker, count, patience, burst (part of a second's rate that may begin at once)
-- Result   {{lane (index in the lanes), id, payload}, ...}
-- Fails    with the first lane's refusal, if nothing was taken before it. Else what was taken is returned.
--
-- A slot is an entry that was taken and is not finished, whoever has it: the group counts them. One entry in
-- `patience` is taken from the least urgent lane that has any. Nothing is written unless something was taken:
-- workers that wait ask many times a second.

local group, worker, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local patience, burst = tonumber(ARGV[4]), tonumber(ARGV[5])
local stored, rows = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #rows, 2 do stored[rows[i]] = rows[i + 1] end
if stored.paused then return {} end

local function limit(name)
  local text = stored['s:' .. name] or stored['d:' .. name]
  return text and tonumber(text) or nil
end

local lanes = {}
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then lanes[#lanes + 1] = i end
end

local function taken_so_far()
  local all, mine = 0, 0
  for _, lane in ipairs(lanes) do
    local pending = redis.pcall('XPENDING', KEYS[lane], group)
    if not pending.err then
      all = all + pending[1]
      for _, holder in ipairs(pending[4] or {}) do
        if holder[1] == worker then mine = mine + tonumber(holder[2]) end
      end
    end
  end
  return all, mine
end

local concurrency, worker_concurrency, rate = limit('concurrency'), limit('worker_concurrency'), limit('rate')
if concurrency or worker_concurrency then
  local all, mine = taken_so_far()
  if concurrency then left = math.min(left, concurrency - all) end
  if worker_concurrency then left = math.min(left, worker_concurrency - mine) end
end

local meter = redis.call('HMGET', KEYS[2], 'tokens', 'at', 'turn')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local tokens
if rate then
  local most = math.max(1, rate * burst)
  tokens = most
  if meter[1] and meter[2] then
    tokens = math.min(most, tonumber(meter[1]) + math.max(0, now - tonumber(meter[2])) * rate / 1000)
  end
  left = math.min(left, math.floor(tokens + 1e-6))
end
if left <= 0 then return {} end

local taken, turn, refusal = {}, tonumber(meter[3] or 0), nil

local function read(lane, count)
  local read = redis.pcall('XREADGROUP', 'GROUP', group, worker, 'COUNT', count, 'STREAMS', KEYS[lane], '>')
  if read and read.err and string.sub(read.err, 1, 7) == 'NOGROUP' then
    redis.call('XGROUP', 'CREATE', KEYS[lane], group, '0')
    read = redis.pcall('XREADGROUP', 'GROUP', group, worker, 'COUNT', count, 'STREAMS', KEYS[lane], '>')
  end
  if read and read.err then
    refusal = read
    return 0
  end
  local entries = read and read[1][2] or {}
  for _, entry in ipairs(entries) do
    taken[#taken + 1] = {lane - 2, entry[1], entry[2][2]}
  end
  return #entries
end

local function read_in_order(first, last, step, count)
  local found = 0
  for at = first, last, step do
    if found < count and not refusal then found = found + read(lanes[at], count - found) end
  end
  return found
end

while left > 0 and not refusal do
  local found
  local before_last = patience - 1 - turn % patience
  if before_last == 0 then
    found = read_in_order(#lanes, 1, -1, 1)
  else
    found = read_in_order(1, #lanes, 1, math.min(left, before_last))
  end
  if found == 0 then break end
  left, turn = left - found, turn + found
end

if #taken == 0 then return refusal or {} end
redis.call('HSET', KEYS[2], 'turn', string.format('%.0f', turn))
if rate then
  redis.call('HSET', KEYS[2], 'tokens', string.format('%.6f', tokens - #taken), 'at', string.format('%.0f', now))
end
return taken
