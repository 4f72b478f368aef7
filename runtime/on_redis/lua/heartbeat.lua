-- heartbeat: renew a host's record, take or renew the leader's lease, show the whole cluster.
--
-- KEYS     {hub}:hosts, {hub}:leader, {hub}:placement, {hub}:meta
-- ARGV     host ('' only looks), record, lease_ms, lead ('1' or '0')
-- Result   {now, {host, "<ms of beat> <record>", ...}, leader or '', placement version, placement,
--          {field, value, ...} of the meta}
-- Fails    only as a whole. The lease expires by the server's clock: no host's clock counts.

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
-- Somebody who only looks must not be taken for a host: it would be given partitions.
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
end

local leader = redis.call('GET', KEYS[2])
if ARGV[4] == '1' and (not leader or leader == ARGV[1]) then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
  leader = ARGV[1]
end
local placement = redis.call('HMGET', KEYS[3], 'version', 'map')
return {
  now, redis.call('HGETALL', KEYS[1]), leader or '', placement[1] or '0', placement[2] or '',
  redis.call('HGETALL', KEYS[4])
}
