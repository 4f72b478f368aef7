-- queued: tell which of some activities have an entry in a lane, taken or not. Looks at one page of it.
--
-- KEYS[1]  lane
-- ARGV     count, first id ('-', or '(' and the last id of the page before), row id, row id, ...
-- Result   {last id of this page, or '' if it was the last page; row id, row id, ...}
-- Fails    only as a whole. Writes nothing.
--
-- An entry is {version, {{tag, owner, execution, task, attempt, name, args, key, timeout, row, ...}}} in msgpack.
-- Redis's cmsgpack does not read binary strings, as arguments are; so the few forms that occur are stepped over here,
-- which also copies nothing.

local ROW = 10

local function number(text, at, bytes)
  local value = 0
  for i = at, at + bytes - 1 do value = value * 256 + string.byte(text, i) end
  return value
end

-- Bytes of a value after its first one, by that one; nil: a string or an array.
local FIXED = {[0xc0] = 0, [0xc2] = 0, [0xc3] = 0, [0xca] = 4, [0xcb] = 8}
for i = 0, 3 do
  FIXED[0xcc + i] = 2 ^ i
  FIXED[0xd0 + i] = 2 ^ i
end
-- Bytes that a length takes.
local STRINGS = {[0xc4] = 1, [0xc5] = 2, [0xc6] = 4, [0xd9] = 1, [0xda] = 2, [0xdb] = 4}
local ARRAYS = {[0xdc] = 2, [0xdd] = 4}

-- First and last byte of the string at `at`; nil if there is none.
local function string_at(text, at)
  local first = string.byte(text, at)
  if not first then return nil end
  if first >= 0xa0 and first <= 0xbf then return at + 1, at + first - 0xa0 end
  local bytes = STRINGS[first]
  if not bytes then return nil end
  local start = at + 1 + bytes
  return start, start + number(text, at + 1, bytes) - 1
end

-- How many items the array at `at` has, and where they begin; nil if there is none.
local function array_at(text, at)
  local first = string.byte(text, at)
  if not first then return nil end
  if first >= 0x90 and first <= 0x9f then return first - 0x90, at + 1 end
  local bytes = ARRAYS[first]
  if not bytes then return nil end
  return number(text, at + 1, bytes), at + 1 + bytes
end

-- Where the value after the one at `at` begins; nil if that is of a form that no entry has.
local function after(text, at)
  local first = at and string.byte(text, at)
  if not first then return nil end
  if first < 0x80 or first >= 0xe0 then return at + 1 end
  if FIXED[first] then return at + 1 + FIXED[first] end
  local _, last = string_at(text, at)
  if last then return last + 1 end
  local count, item = array_at(text, at)
  for _ = 1, count or 0 do item = after(text, item) end
  return item
end

local function row_of(text)
  local _, version = array_at(text, 1)
  local _, rows = array_at(text, after(text, version) or 0)
  local count, item = array_at(text, rows or 0)
  if not count or count < ROW then return nil end
  for _ = 2, ROW do item = after(text, item) end
  local first, last = string_at(text, item or 0)
  return first and string.sub(text, first, last)
end

local wanted = {}
for i = 3, #ARGV do wanted[ARGV[i]] = true end
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[1])
local found = {''}
for _, entry in ipairs(entries) do
  local is_read, row = pcall(row_of, entry[2][2])
  if is_read and row and wanted[row] then
    found[#found + 1] = row
    wanted[row] = nil
  end
end
if #entries == tonumber(ARGV[1]) then found[1] = entries[#entries][1] end
return found
