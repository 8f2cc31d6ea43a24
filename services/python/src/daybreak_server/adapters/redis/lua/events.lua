#!lua flags=allow-oom,no-writes
-- A task's own events behind `after` ('' for all), oldest first, at most `limit`.
-- Answers {whether history behind `after` was trimmed, entries as `id type attempt data`}.
local function newer(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am > bm or (am == bm and as > bs)
end

-- How many entries of the list are not behind `after`.
local function passed(key, after)
  local low, high = 0, call('LLEN', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if newer(call('LINDEX', key, middle), after) then high = middle else low = middle + 1 end
  end
  return low
end

local function run(ARGV)
  local id, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
  local r, key = load_task(id), k_ev(id)
  if not r then return { 0, {} } end
  local from, trimmed = after == '' and 0 or passed(key, after), 0
  local entries = {}
  local function tell(one)
    if #entries < limit and (after == '' or newer(one, after)) then entries[#entries + 1] = one end
  end
  if r.trimmed and from == 0 then
    trimmed = 1
  else
    tell(entry(r.qev, 'queued', '0', queued_data(r.pos)))
    if r.sev then tell(started_entry(r)) end
  end
  if #entries < limit then
    for _, one in ipairs(call('LRANGE', key, from, from + limit - #entries - 1)) do entries[#entries + 1] = one end
  end
  if r.fev then tell(entry(r.fev, 'succeeded', r.attempt, succeeded_data(r, '[]'))) end
  return { trimmed, entries }
end
