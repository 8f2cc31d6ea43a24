-- Reads each value only once for a script, collects the script's changes in Lua tables and writes them at the end. It
-- also formats numbers without loss (Lua's tostring keeps only 14 digits).
--
-- A script reads each task's record, each tenant's virtual time, each group and the pool's numbers when it first needs
-- them, and changes them in Lua tables. The functions are `load_task`, `set` and `unset` for records, `zput` and
-- `zdrop` for sorted sets, and `meta`, `set_meta`, `add_meta` and `add_total` for the pool's numbers. At the end, the
-- script calls `flush`, which writes one HSET for each record and one ZADD for each sorted set. If a script must read a
-- key that it may have changed, it calls `flush` first, or `zflush` for a single sorted set. Events are an exception:
-- they go into the pool's stream immediately, because the reply needs their ids. Other fragments have further state:
-- functions in `resets` clear this state when a call begins, and functions in `flushes` write it.
--
-- `NOW` is the time when the call began, in ms. `NOW_TEXT` is this time as text.

-- `begin` sets `call` and `format`, because Redis has no globals while it loads a library.
local call, format
local function int(x) return format('%d', x) end
local function exact(x)
  if x % 1 == 0 and x < 1e15 and x > -1e15 then return format('%d', x) end
  return format('%.17g', x)
end
local function seconds(ms) return format('%.3f', ms / 1000) end

-- Pending changes of sorted sets, by key and member: the new score, or false to remove the member.
local zsets

local function zput(key, member, score)
  local z = zsets[key]
  if not z then
    z = {}
    zsets[key] = z
  end
  z[member] = score
end

local function zdrop(key, member) zput(key, member, false) end

local function zflush(key)
  local z = zsets[key]
  if not z then return end
  zsets[key] = nil
  local puts, p, drops, d = { 'ZADD', key }, 2, { 'ZREM', key }, 2
  for member, score in pairs(z) do
    if score then
      puts[p + 1], puts[p + 2] = score, member
      p = p + 2
    else
      d = d + 1
      drops[d] = member
    end
  end
  if p > 2 then call(unpack(puts)) end
  if d > 2 then call(unpack(drops)) end
end

-- Writes a hash: one HSET for the values in `changes`, one HDEL for the fields that are false there.
local function hflush(key, changes)
  local sets, s, drops, d = { 'HSET', key }, 2, nil, 2
  for name, value in pairs(changes) do
    if value then
      sets[s + 1], sets[s + 2] = name, value
      s = s + 2
    else
      drops = drops or { 'HDEL', key }
      d = d + 1
      drops[d] = name
    end
  end
  if s > 2 then call(unpack(sets)) end
  if drops then call(unpack(drops)) end
end

-- Records: a task's fields by name, as text, and its `id`. A changed record also has `sets` (the arguments of its HSET,
-- `n` of them) and `drops` (the names of the fields to delete).
local tasks, changed

local function load_task(id)
  local r = tasks[id]
  if r == nil then
    local flat = call('HGETALL', k_task(id))
    r = #flat > 0 and { id = id }
    for i = 1, #flat, 2 do r[flat[i]] = flat[i + 1] end
    if r and r.token == '' then r.token = nil end
    tasks[id] = r
  end
  return r or nil
end

local function touch(r)
  if r.sets then return end
  r.sets, r.n, r.drops = { 'HSET', k_task(r.id) }, 2, nil
  changed[#changed + 1] = r
end

local function set(r, name, value)
  touch(r)
  local sets, n = r.sets, r.n
  sets[n + 1], sets[n + 2] = name, value
  r[name], r.n = value, n + 2
  if r.drops then r.drops[name] = nil end
end

local function unset(r, name)
  if not r[name] then return end
  touch(r)
  r[name], r.drops = nil, r.drops or {}
  r.drops[name] = true
end

local function write(r)
  if r.n > 2 then call(unpack(r.sets)) end
  if r.drops and next(r.drops) then
    local drops = { 'HDEL', k_task(r.id) }
    for name in pairs(r.drops) do drops[#drops + 1] = name end
    call(unpack(drops))
  end
  r.sets = nil
end

-- The pool's numbers, all read when a script first needs one of them, and its totals, which scripts only increment.
local NUMBERS = { 'seq', 'vtime', 'lease_clock', 'ticked_ms', 'grace', 'wake_ms', 'mean_s', 'seconds_per_cost',
  'equal_weights' }
local numbers, numbers_changed, totals

local function number(name)  -- nil if it was never set
  if not numbers then
    numbers = {}
    local stored = call('HMGET', K_meta, unpack(NUMBERS))
    for i, key in ipairs(NUMBERS) do numbers[key] = tonumber(stored[i] or nil) end
  end
  return numbers[name]
end

local function meta(name) return number(name) or 0 end

-- `text` is what Redis stores: the value as text, without loss. The call of `meta` makes sure that the stored numbers
-- have been read.
local function set_meta(name, value, text)
  meta(name)
  numbers[name] = value
  numbers_changed = numbers_changed or {}
  numbers_changed[name] = text
end

local function add_meta(name, amount)
  local sum = meta(name) + amount
  set_meta(name, sum, int(sum))
end

local function add_total(name, amount) totals[name] = (totals[name] or 0) + amount end

local flushes = {}  -- functions that write the changes of other fragments
local resets = {    -- functions that clear the state of the previous call
  function()
    zsets, tasks, changed, totals = {}, {}, {}, {}
    numbers, numbers_changed = nil, nil
  end,
}

local function flush()
  for _, write_other in ipairs(flushes) do write_other() end
  for _, r in ipairs(changed) do write(r) end
  changed = {}
  for key in pairs(zsets) do zflush(key) end
  if numbers_changed then
    hflush(K_meta, numbers_changed)
    numbers_changed = nil
  end
  for name, amount in pairs(totals) do
    if amount ~= 0 then call('HINCRBY', K_totals, name, int(amount)) end
  end
  totals = {}
end
