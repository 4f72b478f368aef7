-- place: replace the placement.
--
-- KEYS     {hub}:leader, {hub}:placement
-- ARGV     leader, version, placement
-- Result   1 if it is stored, now or by an earlier try; 0 if another host leads or another version
--          is stored. The version check keeps a late write of a leader that was replaced and came back
--          from undoing what was placed meanwhile.
-- Fails    only as a whole.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local stored = redis.call('HMGET', KEYS[2], 'version', 'map')
local version = tonumber(stored[1] or 0)
if tonumber(ARGV[2]) == version + 1 then
  redis.call('HSET', KEYS[2], 'version', ARGV[2], 'map', ARGV[3])
  return 1
end
return tonumber(ARGV[2]) == version and stored[2] == ARGV[3] and 1 or 0
