-- A task's events. Those that can be rebuilt from its record, such as `queued`, are not stored. The others are in
-- a list. A short task without artifacts needs no list. An entry of the list is `id type attempt data`, separated by
-- spaces.
local emitting

-- Changes of state that the rest of the reply does not show. `reply_of` adds them to the reply; the caller logs them.
local changes

resets[#resets + 1] = function() emitting, changes = {}, {} end

local function entry(id, kind, attempt, data) return id .. ' ' .. kind .. ' ' .. attempt .. ' ' .. data end

local function queued_data(pos)
  if pos then return '{"position":' .. pos .. '}' end
  return '{}'
end

-- The JSON without its closing brace, so that callers can add fields.
local function started_data(group, ranks)
  -- A plain name needs no JSON encoder, which costs as much as a command of Redis.
  local name = string.find(group, '[^%w%._:-]') and cjson.encode(group) or '"' .. group .. '"'
  return '{"group":' .. name .. ',"ranks":' .. ranks
end

local function usage(r)
  return '"usage":{"gpu_seconds":' .. seconds(tonumber(r.used_ms or '0'))
    .. ',"wasted_gpu_seconds":' .. seconds(tonumber(r.wasted_ms or '0')) .. '}'
end

local function succeeded_data(r, shown) return '{"artifacts":' .. shown .. ',' .. usage(r) .. '}' end

-- Adds an event to the pool's stream, which has the newest events of all its tasks.
local function announce(r, kind, data)
  return call('XADD', K_events, 'MAXLEN', '~', EVENTS_MAX, '*',
    'task', r.id, 'type', kind, 'attempt', r.attempt or '0', 'data', data)
end

-- Emits an event that the record implies: only its id is stored, in `field` (`queued_event_id`, `started_event_id` or
-- `final_event_id`).
local function emit_in_record(r, field, kind, data) set(r, field, announce(r, kind, data)) end

-- The first `started` event is not in the list at first, because the record implies it. When the next event comes, `emit`
-- adds the `started` event to the list, because from then on the record may name another group.
local function started_entry(r)
  return entry(r.started_event_id, 'started', '1', started_data(r.group, r.ranks) .. '}')
end

local function write_list(r)
  if call(unpack(r.push)) > EV_MAX + EV_SLACK then
    call('LTRIM', k_ev(r.id), -EV_MAX, -1)
    set(r, 'trimmed', '1')
  end
  r.push = nil
end

local function emit(r, kind, data)
  local push = r.push  -- the command that appends the new events to the list
  if not push then
    push = { 'RPUSH', k_ev(r.id) }
    r.push = push
    emitting[#emitting + 1] = r
  end
  if r.started_event_id then
    push[#push + 1] = started_entry(r)
    unset(r, 'started_event_id')
  end
  push[#push + 1] = entry(announce(r, kind, data), kind, r.attempt or '0', data)
  if #push > EV_BATCH_MAX then write_list(r) end
end

local function report_change(r, kind, data)
  local trace = string.match(call('GET', k_spec(r.id)) or '', '^[^\n]*"":"%x+%-(%x+)')
  changes[#changes + 1] = { r.id, kind, r.attempt or '0', r.group or '', r.tenant, trace or '', data }
end

-- Emits an event for a change of state that must also reach the log.
local function emit_change(r, kind, data)
  emit(r, kind, data)
  report_change(r, kind, data)
end

flushes[#flushes + 1] = function()
  for _, r in ipairs(emitting) do
    if r.push then write_list(r) end
  end
  emitting = {}
end

local function last_event(r)
  local last = not r.final_event_id and not r.started_event_id and call('LINDEX', k_ev(r.id), -1)
  return r.final_event_id or r.started_event_id or (last and string.match(last, '^%S+')) or r.queued_event_id
end
