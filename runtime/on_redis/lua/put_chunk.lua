-- put_chunk: write one piece of a payload, once.
--
-- KEYS[1]  {hub:p}:payload:<id>
-- KEYS[2]  {hub:p}:by:payloads
-- ARGV     number of the piece, its bytes, id
-- Result   1 written now, 0 it was there
-- Fails    only as a whole.
--
-- A piece that is new makes the payload pending; one that is there does not: a request that was sent twice may
-- arrive when the payload has been adopted, and must not hand it to the sweep. One that arrives
-- when the payload has been deleted is swept.

if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), ARGV[3])
return 1
