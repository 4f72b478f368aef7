-- finish: remove taken entries of one lane for good.
--
-- KEYS     lane, details of its entries
-- ARGV     group, id, id, ...
-- Result   how many there still were
-- Fails    NOGROUP cannot happen here: XACK answers 0. Safe to repeat.

local ids = {unpack(ARGV, 2)}
redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
redis.call('HDEL', KEYS[2], unpack(ids))
return redis.call('XDEL', KEYS[1], unpack(ids))
