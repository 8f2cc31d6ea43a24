#!lua flags=allow-oom,no-writes
-- Returns the events of a task that follow `after` ('' for all events), oldest first, at most `limit`.
-- Returns {1 if events that follow `after` may have been trimmed, else 0; entries as `id type attempt data`}.
local function newer(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, a_seq, b_ms, b_seq = tonumber(a_ms), tonumber(a_seq), tonumber(b_ms), tonumber(b_seq)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

-- Counts, by binary search, the entries of the list that are not newer than `after`.
local function count_read(key, after)
  local low, high = 0, call('LLEN', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if newer(call('LINDEX', key, middle), after) then high = middle else low = middle + 1 end
  end
  return low
end

local function run(ARGV)
  local a = read.events_page(ARGV, 1)
  local after, limit = a.after, tonumber(a.limit)
  local r, key = load_task(a.task), k_ev(a.task)
  if not r then return { 0, {} } end
  local from, trimmed = after == '' and 0 or count_read(key, after), 0
  local entries = {}
  local function add(event)
    if #entries < limit and (after == '' or newer(event, after)) then entries[#entries + 1] = event end
  end
  if r.trimmed and from == 0 then
    trimmed = 1
  else
    add(entry(r.queued_event_id, 'queued', '0', queued_data(r.pos)))
    if r.started_event_id then add(started_entry(r)) end
  end
  if #entries < limit then
    for _, event in ipairs(call('LRANGE', key, from, from + limit - #entries - 1)) do entries[#entries + 1] = event end
  end
  if r.final_event_id then add(entry(r.final_event_id, 'succeeded', r.attempt, succeeded_data(r, '[]'))) end
  return { trimmed, entries }
end
