-- A task's own events: a few are told by its record alone, and a short task has no others; the rest is a list.
-- An entry of the list is `id type attempt data`, with a space between.
local telling

resets[#resets + 1] = function() telling = {} end

local function entry(id, kind, attempt, data) return id .. ' ' .. kind .. ' ' .. attempt .. ' ' .. data end

local function queued_data(pos)
  if pos then return '{"position":' .. pos .. '}' end
  return '{}'
end

-- Without its closing brace.
local function started_data(group, ranks)
  -- A name that is plain needs no encoder, which costs as much as a command.
  local name = string.find(group, '[^%w%._:-]') and cjson.encode(group) or '"' .. group .. '"'
  return '{"group":' .. name .. ',"ranks":' .. ranks
end

local function usage(r)
  return '"usage":{"gpu_seconds":' .. seconds(tonumber(r.used_ms or '0'))
    .. ',"wasted_gpu_seconds":' .. seconds(tonumber(r.wasted_ms or '0')) .. '}'
end

local function succeeded_data(r, shown) return '{"artifacts":' .. shown .. ',' .. usage(r) .. '}' end

-- The pool's stream has every event.
local function announce(r, kind, data)
  return call('XADD', K_events, 'MAXLEN', '~', EVENTS_MAX, '*',
    'task', r.id, 'type', kind, 'attempt', r.attempt or '0', 'data', data)
end

-- An event that the record tells, once it has the event's id in `field`: `qev`, `sev` or `fev`.
local function emit_told(r, field, kind, data) set(r, field, announce(r, kind, data)) end

-- The first `started` is told by the record for as long as nothing comes behind it: after that another group may
-- have the task.
local function started_entry(r) return entry(r.sev, 'started', '1', started_data(r.group, r.ranks) .. '}') end

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
    telling[#telling + 1] = r
  end
  if r.sev then
    own[#own + 1] = started_entry(r)
    unset(r, 'sev')
  end
  own[#own + 1] = entry(announce(r, kind, data), kind, r.attempt or '0', data)
  if #own > EV_AT_ONCE then write_own(r) end
end

flushes[#flushes + 1] = function()
  for _, r in ipairs(telling) do
    if r.own then write_own(r) end
  end
  telling = {}
end

local function last_event(r)
  local last = not r.fev and not r.sev and call('LINDEX', k_ev(r.id), -1)
  return r.fev or r.sev or (last and string.match(last, '^%S+')) or r.qev
end
