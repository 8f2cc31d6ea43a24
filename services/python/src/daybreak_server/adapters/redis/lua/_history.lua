-- A task's events: those that its record implies, which are all that a short task has, and a list of the others.
-- An entry of the list is `id type attempt data`, separated by spaces.
local emitting

resets[#resets + 1] = function() emitting = {} end

local function entry(id, kind, attempt, data) return id .. ' ' .. kind .. ' ' .. attempt .. ' ' .. data end

local function queued_data(pos)
  if pos then return '{"position":' .. pos .. '}' end
  return '{}'
end

-- The JSON without its closing brace, so that callers can add fields.
local function started_data(group, ranks)
  -- A plain name needs no JSON encoder, which costs as much as a command.
  local name = string.find(group, '[^%w%._:-]') and cjson.encode(group) or '"' .. group .. '"'
  return '{"group":' .. name .. ',"ranks":' .. ranks
end

local function usage(r)
  return '"usage":{"gpu_seconds":' .. seconds(tonumber(r.used_ms or '0'))
    .. ',"wasted_gpu_seconds":' .. seconds(tonumber(r.wasted_ms or '0')) .. '}'
end

local function succeeded_data(r, shown) return '{"artifacts":' .. shown .. ',' .. usage(r) .. '}' end

-- Adds an event to the pool's stream, which has every event.
local function announce(r, kind, data)
  return call('XADD', K_events, 'MAXLEN', '~', EVENTS_MAX, '*',
    'task', r.id, 'type', kind, 'attempt', r.attempt or '0', 'data', data)
end

-- Emits an event that the record implies: only its id is stored, in `field` (`queued_event_id`, `started_event_id` or
-- `final_event_id`).
local function emit_in_record(r, field, kind, data) set(r, field, announce(r, kind, data)) end

-- The record implies the first `started` until another event follows. After that, the record may name another group.
local function started_entry(r)
  return entry(r.started_event_id, 'started', '1', started_data(r.group, r.ranks) .. '}')
end

local function write_own(r)
  if call(unpack(r.own)) > EV_MAX + EV_SLACK then
    call('LTRIM', k_ev(r.id), -EV_MAX, -1)
    set(r, 'trimmed', '1')
  end
  r.own = nil
end

local function emit(r, kind, data)
  local own = r.own
  if not own then
    own = { 'RPUSH', k_ev(r.id) }
    r.own = own
    emitting[#emitting + 1] = r
  end
  if r.started_event_id then
    own[#own + 1] = started_entry(r)
    unset(r, 'started_event_id')
  end
  own[#own + 1] = entry(announce(r, kind, data), kind, r.attempt or '0', data)
  if #own > EV_BATCH_MAX then write_own(r) end
end

flushes[#flushes + 1] = function()
  for _, r in ipairs(emitting) do
    if r.own then write_own(r) end
  end
  emitting = {}
end

local function last_event(r)
  local last = not r.final_event_id and not r.started_event_id and call('LINDEX', k_ev(r.id), -1)
  return r.final_event_id or r.started_event_id or (last and string.match(last, '^%S+')) or r.queued_event_id
end
