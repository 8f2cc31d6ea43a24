-- Numbers as text without loss (Lua's own tostring keeps 14 digits), and a unit of work: a script reads a thing
-- once, changes what it has read, and writes each thing once, in `flush`, which is the last that it calls.
-- `NOW` is when the call began, in ms; `NOW_TEXT` the same as text.
-- There are no globals while a library is loaded: `begin` finds these two.
local call, format
local function int(x) return format('%d', x) end
local function exact(x)
  if x % 1 == 0 and x < 1e15 and x > -1e15 then return format('%d', x) end
  return format('%.17g', x)
end
local function seconds(ms) return format('%.3f', ms / 1000) end

-- Sorted sets: what shall be in them, by key and member: a score, or false for what goes.
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

-- Hashes: one HSET of what `changes` sets, one HDEL of what is false there.
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

-- Records: a task's fields by name as text, with `id` beside them, and once something of it changes: `sets` (the HSET
-- as it will be called, of `n` words) and `drops` (names of fields that go).
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

-- The pool's numbers, all read at the first question; and its totals, which are only added to.
local NUMBERS = { 'seq', 'vtime', 'lease_clock', 'ticked_ms', 'grace', 'wake_ms', 'mean_s', 'seconds_per_cost' }
local numbers, numbers_changed, totals

local function number(name)  -- nil where there is none yet
  if not numbers then
    numbers = {}
    local stored = call('HMGET', K_meta, unpack(NUMBERS))
    for i, key in ipairs(NUMBERS) do numbers[key] = tonumber(stored[i] or nil) end
  end
  return numbers[name]
end

local function meta(name) return number(name) or 0 end

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

local flushes = {}  -- what the other fragments have to write
local resets = {    -- and how all of them forget the call before
  function()
    zsets, tasks, changed, totals = {}, {}, {}, {}
    numbers, numbers_changed = nil, nil
  end,
}

local function flush()
  for _, other in ipairs(flushes) do other() end
  for _, r in ipairs(changed) do write(r) end
  changed = {}
  for key in pairs(zsets) do zflush(key) end
  if numbers_changed then
    hflush(K_meta, numbers_changed)
    numbers_changed = nil
  end
  for name, amount in pairs(totals) do call('HINCRBY', K_meta, name, int(amount)) end
  totals = {}
end
