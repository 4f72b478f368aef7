-- take_over: hand entries that some workers hold to another one (or to the same one, anew).
--
-- KEYS[1]  queue
-- ARGV     group, worker, count, holder, holder, ...
-- Result   {{id, payload, deliveries}, ...}; what is the worker's own already is not counted as delivered again
-- Fails    NOGROUP: the queue was never used.
--
-- Atomic, so of two that sweep at once only one finds an entry in a dead holder's list, however
-- short ago it was taken. A holder is forgotten only when it holds nothing: deleting a consumer
-- throws away what it holds.

local queue, group, worker, left = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local moved = {}

local function move(id, deliveries, holder)
  local count = holder == worker and deliveries or deliveries + 1
  local claimed = redis.call('XCLAIM', queue, group, worker, 0, id, 'RETRYCOUNT', count)
  if claimed[1] then
    moved[#moved + 1] = {id, claimed[1][2][2], deliveries + 1}
  else
    redis.call('XACK', queue, group, id) -- the entry itself is gone: finished, half-way
  end
end

for i = 4, #ARGV do
  local holder = ARGV[i]
  if left > 0 then
    local held = redis.call('XPENDING', queue, group, '-', '+', left, holder)
    for _, entry in ipairs(held) do move(entry[1], entry[4], holder) end
    left = left - #held
  end
  if holder ~= worker and #redis.call('XPENDING', queue, group, '-', '+', 1, holder) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', queue, group, holder)
  end
end
return moved
