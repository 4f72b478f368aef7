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
local range = newest and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'

local function smallest(keys)
  local found, size = 1, nil
  for at, key in ipairs(keys) do
    local length = redis.call('ZCARD', key)
    if not size or length < size then found, size = at, length end
  end
  return table.remove(keys, found)
end

-- Which members of a chunk are in all of the keys.
local function in_all(keys, chunk)
  local is_in = {}
  for at = 1, #chunk do is_in[at] = true end
  for _, key in ipairs(keys) do
    for at, score in ipairs(redis.call('ZMSCORE', key, unpack(chunk))) do
      if not score then is_in[at] = false end
    end
  end
  return is_in
end

local function walk(keys)
  if wanted == 0 and #keys == 1 and prefix == '' then  -- needs no walk
    return {redis.call('ZLEXCOUNT', keys[1], newest and to or from, newest and from or to), ''}
  end
  local walked = smallest(keys)
  local found, count, steps, at, stopped = {}, 0, 0, from, ''
  local size = CHUNK_MAX
  if wanted > 0 and wanted < size and #keys == 0 and prefix == '' then size = wanted end
  repeat
    local chunk = redis.call(range, walked, at, to, 'LIMIT', 0, size)
    if #chunk == 0 then return {wanted > 0 and found or count, ''} end
    local is_in = in_all(keys, chunk)
    for position, member in ipairs(chunk) do
      stopped = member
      if is_in[position] and (prefix == '' or string.sub(member, first, last) == prefix) then
        count = count + 1
        if wanted > 0 then found[count] = member end
        if count == wanted then return {found, stopped} end
      end
    end
    if #chunk < size then stopped = '' end
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
