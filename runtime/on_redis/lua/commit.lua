-- commit: apply rounds of partitions, each with all its consequences or not at all.
--
-- KEYS     all keys that the commits name, in any order
-- ARGV[1]  msgpack list, one item per commit:
--          {owner, token, number, owner_fields, outbox, rows, deliveries, producer, inbox, position, direct}
--          owner, outbox  index in KEYS; outbox 0: it has no delivery that could have to wait
--          inbox          index in KEYS; 0: it consumes nothing, else position is the last entry it consumes
--          owner_fields   {field, value, ...} for the owner row: n (this number), pos, s:<target>
--          rows           list of {command, index in KEYS, argument, ...}, applied in order
--          deliveries     list of {id, target, sequence, payloads [, stream, producers, length_max]}
--                         with a stream they go straight into it if it is their turn there and
--                         there is room (producers 0: a client's replies), else into the outbox
--          direct         0, or {producers, doubled, {lane, first, last, ...}, {lane, number, ...}}: batches that
--                         were handed over and are taken with this commit; doubles of such that it consumes
-- ARGV[2]  lifetime of a client's stream, ms
-- Result   one item per commit:
--          0                nothing of it waits in the outbox
--          {0, id, ...}     these wait in the outbox
--          {1, host}        another token, or none (''), owns the partition: nothing was written
--          {2, n}           store behind: the stored commit number n is too low, or the inbox has lost the entry
--                           at position, or a lane's mark is below that before first; nothing was written
-- Fails    only at its first write (no memory, a replica, MISCONF), before anything of the first
--          commit to be applied was written. Safe to repeat: a number that is applied is
--          answered from what is stored.
--
-- Redis refuses a script's writes for lack of memory only before its first write, and only for
-- commands that may grow memory. So the owner row, an HSET, goes first: a commit that is
-- refused there was refused as a whole, and one that got past it will not be refused any more.
--
-- On a Cluster there is one commit per call, all keys have its tag, and no delivery has a stream.

local COMMITTED, LEASE_LOST, STORE_BEHIND = 0, 1, 2

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

-- Replies to a client from all commits of this call go into its stream together, as fields of one entry: with
-- 28 commits that answer one client, an entry each took 230 of the 750 us of the whole call.
local replies, answered, FIELDS_MAX = {}, {}, 1000

local function write_replies(stream)
  local kept = replies[stream]
  redis.call('XADD', stream, 'MAXLEN', '~', kept.length_max, '*', unpack(kept))
  redis.call('PEXPIRE', stream, ARGV[2])
  replies[stream] = nil
end

local function deliver_to_client(stream, length_max, payloads)
  for _, payload in ipairs(payloads) do
    local kept = replies[stream]
    if not kept then
      kept = {length_max = length_max}
      replies[stream] = kept
      answered[#answered + 1] = stream
    end
    kept[#kept + 1] = 'p'
    kept[#kept + 1] = payload
    if #kept >= FIELDS_MAX then write_replies(stream) end
  end
end

-- True if the delivery is in its target. While an earlier one waits in the outbox the target's mark is
-- not the number before, so none can overtake.
local function deliver(producer, sequence, payloads, stream, producers, length_max)
  if not stream then return false end
  if not producers then
    deliver_to_client(stream, length_max, payloads)
    return true
  end
  local mark = redis.call('HGET', producers, producer)
  local last = mark and tonumber(string.match(mark, '^%d+')) or 0
  if last ~= sequence - 1 or redis.call('XLEN', stream) >= length_max then return false end
  for _, payload in ipairs(payloads) do
    redis.call('XADD', stream, '*', 'p', payload)
  end
  redis.call('HSET', producers, producer, string.format('%.0f %s', sequence, now))
  return true
end

local function mark_of(producers, lane)
  local mark = redis.call('HGET', producers, lane)
  return mark and tonumber(string.match(mark, '^%d+')) or 0
end

-- What is taken directly takes its numbers as an append would have. Some may be in the inbox already, sent again
-- by a client that had no answer: an owner that reads those must know that they were taken.
local function take_direct(direct)
  local producers, doubled, lanes, passed = KEYS[direct[1]], KEYS[direct[2]], direct[3], direct[4]
  for i = 1, #lanes, 3 do
    local lane, first, last = lanes[i], lanes[i + 1], lanes[i + 2]
    local mark = mark_of(producers, lane)
    if mark >= first then redis.call('HSET', doubled, lane, string.format('%.0f', math.min(last, mark))) end
    redis.call('HSET', producers, lane, string.format('%.0f %s', math.max(last, mark), now))
  end
  for i = 1, #passed, 2 do
    local number = redis.call('HGET', doubled, passed[i])
    if number and tonumber(number) <= passed[i + 1] then redis.call('HDEL', doubled, passed[i]) end
  end
end

local function follows(direct)
  local lanes = direct[3]
  for i = 1, #lanes, 3 do
    if mark_of(KEYS[direct[1]], lanes[i]) < lanes[i + 1] - 1 then return false end
  end
  return true
end

local function apply(item)
  local outcome = COMMITTED
  redis.call('HSET', KEYS[item[1]], unpack(item[4]))
  if item[11] ~= 0 then take_direct(item[11]) end
  for _, row in ipairs(item[6]) do
    redis.call(row[1], KEYS[row[2]], unpack(row, 3))
  end
  for _, d in ipairs(item[7]) do
    if not deliver(item[8], d[3], d[4], KEYS[d[5]], KEYS[d[6]], d[7]) then
      redis.call('XADD', KEYS[item[5]], d[1], 't', d[2], 's', d[3], 'b', cmsgpack.pack(d[4]))
      if outcome == COMMITTED then outcome = {COMMITTED} end
      outcome[#outcome + 1] = d[1]
    end
  end
  return outcome
end

-- What the first try of a number left in the outbox and nobody has delivered since. The owner row is written
-- again as it is: WAIT only waits for writes of its own connection, and the first try may have had another one.
local function answer_again(item, stored)
  redis.call('HSET', KEYS[item[1]], 'n', stored)
  if item[5] == 0 then return COMMITTED end
  local outcome = {COMMITTED}
  local first, last = string.format('%.0f-0', item[3]), string.format('%.0f-18446744073709551615', item[3])
  for _, entry in ipairs(redis.call('XRANGE', KEYS[item[5]], first, last)) do
    outcome[#outcome + 1] = entry[1]
  end
  return outcome
end

local function commit(item)
  local row = redis.call('HMGET', KEYS[item[1]], 'token', 'n', 'host')
  local stored = tonumber(row[2] or 0)
  if row[1] ~= item[2] or item[2] == '' then return {LEASE_LOST, row[3] or ''} end
  if item[3] > stored + 1 then return {STORE_BEHIND, stored} end
  if item[3] <= stored then return answer_again(item, row[2]) end
  -- An entry that was read can be lost in a failover. Its sender appends it again: consumed here, it would count twice.
  if item[9] > 0 and #redis.call('XRANGE', KEYS[item[9]], item[10], item[10]) == 0 then
    return {STORE_BEHIND, stored}
  end
  if item[11] ~= 0 and not follows(item[11]) then return {STORE_BEHIND, stored} end
  return apply(item)
end

local outcomes = {}
for index, item in ipairs(cmsgpack.unpack(ARGV[1])) do
  outcomes[index] = commit(item)
end
for _, stream in ipairs(answered) do
  if replies[stream] then write_replies(stream) end
end
return outcomes
