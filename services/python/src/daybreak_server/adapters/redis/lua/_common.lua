-- Numbers as text without loss (Lua's own tostring keeps 14 digits), loading records, writing events.
local function int(x) return string.format('%.0f', x) end
local function exact(x) return string.format('%.17g', x) end
local function seconds(ms) return string.format('%.3f', ms / 1000) end

local EVENTS_MAX, EV_MAX = 1000000, 1000

local function load_hash(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local r = {}
  for i = 1, #flat, 2 do r[flat[i]] = flat[i + 1] end
  return r
end

local function load_task(id) return load_hash(k_task(id)) end

local function meta(name) return tonumber(redis.call('HGET', K_meta, name) or '0') end

local TERMINAL = { succeeded = true, failed = true, cancelled = true, expired = true }

-- The task's own stream begins with the `queued` event under the id that submit gave it in the pool's stream.
local function queued_data(r)
  if r.pos then return '{"position":' .. r.pos .. '}' end
  return '{}'
end

local function open_stream(id, r)
  if redis.call('EXISTS', k_ev(id)) == 0 then
    redis.call('XADD', k_ev(id), r.qev, 'type', 'queued', 'attempt', '0', 'data', queued_data(r))
  end
end

local function emit(id, kind, attempt, data)
  local eid = redis.call('XADD', K_events, 'MAXLEN', '~', EVENTS_MAX, '*',
    'task', id, 'type', kind, 'attempt', attempt, 'data', data)
  redis.call('XADD', k_ev(id), 'MAXLEN', '~', EV_MAX, eid, 'type', kind, 'attempt', attempt, 'data', data)
  return eid
end
