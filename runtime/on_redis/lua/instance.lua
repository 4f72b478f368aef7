-- instance: read an orchestration's row and its history as of one moment.
--
-- KEYS     {hub:p}:instances, {hub:p}:history:<id>
-- ARGV     id
-- Result   {row or nil, {batch, ...}}

return {redis.call('HGET', KEYS[1], ARGV[1]), redis.call('LRANGE', KEYS[2], 0, -1)}
