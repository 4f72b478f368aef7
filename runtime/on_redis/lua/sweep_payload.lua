-- sweep_payload: delete a payload that nobody has adopted.
--
-- KEYS[1]  {hub:p}:payload:<id>
-- KEYS[2]  {hub:p}:by:payloads
-- ARGV     id, Unix ms
-- Result   1 deleted, 0 it is adopted, or was written at that time or later
-- Fails    only as a whole.

local written = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not written or tonumber(written) >= tonumber(ARGV[2]) then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
