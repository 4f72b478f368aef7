-- details: keep what heartbeats said, beside the entries of their attempts.
--
-- KEYS     lane, details of its entries
-- ARGV     id, details, id, details, ...
-- Result   how many were kept: those whose entry is still there; a worker that lost its entry may come late
-- Fails    only as a whole. Safe to repeat.

local kept = 0
for i = 1, #ARGV, 2 do
  if #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    kept = kept + 1
  end
end
return kept
