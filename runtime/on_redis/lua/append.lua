-- append: put batches into their targets, each exactly once.
--
-- KEYS     streams and producer hashes of the targets, in any order
-- ARGV[1]  msgpack list, one item per append, in the order in which they are to be put:
--          {stream, producers, producer, sequence, resync, length_max, payloads, mailbox, mailbox_max}
--          stream, producers  index in KEYS; producers 0: a client's replies, which take no sequence
--          sequence           1, 2, 3 ... per producer; 0: not checked
--          resync             true: take a gap; a number: take it only if that is the last one taken
--          length_max         of the stream; for a client the oldest beyond it go
--          mailbox            index in KEYS of the target's mailbox if the append yields to it, else 0
-- ARGV[2]  lifetime of a client's stream, ms
-- Result   one number per append: 0 stored, now or before; 1 gap: an earlier sequence number is
--          missing; 2 full; 3 the mailbox holds mailbox_max rows. For 1 to 3 nothing of it was stored.
-- Fails    only at its first write (no memory, a replica, MISCONF): nothing was stored then.
--
-- On a Cluster all keys are those of one target, so of one slot.

local OK, GAP, FULL, CROWDED = 0, 1, 2, 3

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

local function last_sequence(producers, producer)
  local mark = redis.call('HGET', producers, producer)
  return mark and tonumber(string.match(mark, '^%d+')) or 0
end

local function append_to_client(stream, length_max, payloads)
  for _, payload in ipairs(payloads) do
    redis.call('XADD', stream, 'MAXLEN', '~', length_max, '*', 'p', payload)
  end
  redis.call('PEXPIRE', stream, ARGV[2])
  return OK
end

local function append(stream, producers, producer, sequence, resync, length_max, payloads, mailbox, mailbox_max)
  -- A repeat is answered before anything else, also when the target has become full since. It writes the mark
  -- again: WAIT only waits for writes of its own connection, and the first try may have had another one.
  if sequence > 0 then
    local last = last_sequence(producers, producer)
    if sequence <= last then
      redis.call('HSET', producers, producer, string.format('%.0f %s', last, now))
      return OK
    end
    if type(resync) == 'number' then
      if resync ~= last then return GAP end
    elseif sequence > last + 1 and not resync then return GAP end
  end
  if #payloads > 0 and redis.call('XLEN', stream) >= length_max then return FULL end
  if mailbox and #payloads > 0 and redis.call('HLEN', mailbox) >= mailbox_max then return CROWDED end

  for _, payload in ipairs(payloads) do
    redis.call('XADD', stream, '*', 'p', payload)
  end
  if sequence > 0 then
    redis.call('HSET', producers, producer, string.format('%.0f %s', sequence, now))
  end
  return OK
end

local outcomes = {}
for index, item in ipairs(cmsgpack.unpack(ARGV[1])) do
  local stream, producers = KEYS[item[1]], KEYS[item[2]]
  if producers then
    outcomes[index] = append(stream, producers, item[3], item[4], item[5], item[6], item[7],
      KEYS[item[8]], item[9])
  else
    outcomes[index] = append_to_client(stream, item[6], item[7])
  end
end
return outcomes
