-- take: hand up to count new entries of several queues to a worker, without waiting.
--
-- KEYS     queues, the one to be served first in front
-- ARGV     group, worker, count
-- Result   {{queue (index in KEYS), id, payload}, ...}
-- Fails    NOGROUP where a queue has no group yet: nothing was taken from it or those behind it,
--          and what was taken in front of it is the worker's and found by take_over.
--
-- XREADGROUP's own COUNT is per stream: it would take count entries from every queue.

local taken, left = {}, tonumber(ARGV[3])
for index, queue in ipairs(KEYS) do
  if left == 0 then break end
  local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', queue, '>')
  for _, entry in ipairs(read and read[1][2] or {}) do
    taken[#taken + 1] = {index, entry[1], entry[2][2]}
    left = left - 1
  end
end
return taken
