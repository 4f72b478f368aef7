-- put_back: make entries that were taken but not begun new again, at the end of their queue.
--
-- KEYS[1]  queue
-- ARGV     group, id, id, ...
-- Result   how many were put back
-- Fails    only as a whole. Not repeatable, and need not be: what it did not reach is the worker's.

local put = 0
for i = 2, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if entry and redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[1], '*', 'p', entry[2][2])
    redis.call('XDEL', KEYS[1], ARGV[i])
    put = put + 1
  end
end
return put
