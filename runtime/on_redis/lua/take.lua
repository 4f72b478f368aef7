-- take: hand up to count new entries of several queues to a worker, without waiting.
--
-- KEYS     queues, the one to be served first in front
-- ARGV     group, worker, count
-- Result   {{queue (index in KEYS), id, payload}, ...}
-- Fails    with the first queue's refusal (NOGROUP: it has no group yet), then nothing was taken. A queue that
--          refuses after something was taken ends the round: an error would leave that with a worker that lives and
--          never hears of it. The caller serves another queue first next time, so it meets the refusal then.
--
-- XREADGROUP's own COUNT is per stream: it would take count entries from every queue.

local taken, left = {}, tonumber(ARGV[3])
for index, queue in ipairs(KEYS) do
  if left == 0 then break end
  local read = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', queue, '>')
  if read and read.err then
    if #taken == 0 then return read end
    break
  end
  for _, entry in ipairs(read and read[1][2] or {}) do
    taken[#taken + 1] = {index, entry[1], entry[2][2]}
    left = left - 1
  end
end
return taken
