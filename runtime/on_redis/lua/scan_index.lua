-- scan_index: walk members that are in all of some indexes and in any of others, a bounded number of steps.
--
-- KEYS     {hub:p}:by:<index> ...   sorted sets, all scores 0; the last of them are the "any" ones
-- ARGV     from, to (as in ZRANGEBYLEX; with newest as in ZREVRANGEBYLEX), newest (0 or 1), prefix, where in a
--          member the prefix begins (bytes), how many members to return (0: count them), steps_max, number of
--          "any" keys
-- Result   a list, one item per "any" key, or one: {members or their number, the last member that was looked at;
--          '' if there are no more}
-- Fails    only as a whole; it only reads.
--
-- All walks of one call see the same moment: what moves from one "any" index to another is found once, or, by
-- who merges the walks, twice in one place; never not at all.

local from, to, newest, prefix = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local first = tonumber(ARGV[5]) + 1
local last = first + #prefix - 1
local wanted, steps_max, choices = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local CHUNK_MAX = 500  -- arguments of ZMSCORE, and what unpack takes
local INTERSECT_MAX = 20 * steps_max  -- members of which the server counts as many in the time of steps_max here
local range = newest and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'

local function smallest(keys)
  local found, size = 1, nil
  for at, key in ipairs(keys) do
    local length = redis.call('ZCARD', key)
    if not size or length < size then found, size = at, length end
  end
  return table.remove(keys, found)
end

-- Those of a chunk that begin with the prefix. Bytes first: they make no string of each member.
local left_byte, right_byte = string.byte(prefix, 1), string.byte(prefix, #prefix)
local function with_prefix(chunk)
  if prefix == '' then return chunk end
  local found = {}
  for _, member in ipairs(chunk) do
    if string.byte(member, first) == left_byte and string.byte(member, last) == right_byte
      and string.sub(member, first, last) == prefix then
      found[#found + 1] = member
    end
  end
  return found
end

-- Those of a chunk that are in all of the keys.
local function in_all(keys, chunk)
  for _, key in ipairs(keys) do
    if #chunk == 0 then return chunk end
    local found = {}
    for at, score in ipairs(redis.call('ZMSCORE', key, unpack(chunk))) do
      if score then found[#found + 1] = chunk[at] end
    end
    chunk = found
  end
  return chunk
end

-- How many members are in all of the keys, where the server can tell that by itself; else nil.
local function counted(keys)
  if wanted ~= 0 or prefix ~= '' then return nil end
  if #keys == 1 then return redis.call('ZLEXCOUNT', keys[1], newest and to or from, newest and from or to) end
  if from ~= (newest and '+' or '-') or to ~= (newest and '-' or '+') then return nil end
  local least
  for _, key in ipairs(keys) do
    local length = redis.call('ZCARD', key)
    if not least or length < least then least = length end
  end
  if least > INTERSECT_MAX then return nil end
  local card = redis.pcall('ZINTERCARD', #keys, unpack(keys))  -- came with Redis 7
  if type(card) == 'number' then return card end
  return nil
end

local function walk(keys)
  local known = counted(keys)
  if known then return {known, ''} end
  local walked = smallest(keys)
  local found, count, steps, at, stopped = {}, 0, 0, from, ''
  local size = CHUNK_MAX
  if wanted > 0 and wanted < size and #keys == 0 and prefix == '' then size = wanted end
  repeat
    local chunk = redis.call(range, walked, at, to, 'LIMIT', 0, size)
    if #chunk == 0 then return {wanted > 0 and found or count, ''} end
    for _, member in ipairs(in_all(keys, with_prefix(chunk))) do
      count = count + 1
      if wanted > 0 then found[count] = member end
      if count == wanted then return {found, member} end
    end
    stopped = #chunk < size and '' or chunk[#chunk]
    steps = steps + #chunk
    at = '(' .. stopped
  until stopped == '' or steps >= steps_max
  return {wanted > 0 and found or count, stopped}
end

local results = {}
for choice = 1, math.max(1, choices) do
  local keys = {}
  for at = 1, #KEYS - choices do keys[at] = KEYS[at] end
  if choices > 0 then keys[#keys + 1] = KEYS[#KEYS - choices + choice] end
  results[choice] = walk(keys)
end
return results
