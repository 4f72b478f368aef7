-- hand: publish batches to a host, together with where the inboxes end that they pass by.
--
-- KEYS     inbox of each partition that a batch is for
-- ARGV     channel, batches
-- Result   how many listen there, at this server: 0 or 1
-- Fails    only as a whole; at a replica, which may not know the end of an inbox. Changes nothing, so nothing
--          waits for the disk.
--
-- What is published: the id of the last entry of each inbox (nothing for an empty one), with blanks between,
-- a line feed, and the batches. The host takes a batch when it has taken all up to that entry: so
-- a call never overtakes what was acknowledged before it was made, to whomever.

-- Deletes nothing: no entry has this id. It has a replica refuse the script, as it would not if that only read.
redis.call('XDEL', KEYS[1], '0-0')

local ends = {}
for i, inbox in ipairs(KEYS) do
  local last = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
  ends[i] = last and last[1] or ''
end
return redis.call('PUBLISH', ARGV[1], table.concat(ends, ' ') .. '\n' .. ARGV[2])
