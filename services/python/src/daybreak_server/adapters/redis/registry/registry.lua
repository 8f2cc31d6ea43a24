-- The registry of workers and models. It has one function, whose first argument names the operation.
--
-- `changes` is a stream whose ids are the versions of the registry, so that readers can wait for the next version.
-- Leases end by the registry's own lease clock, which `tick` advances.
--
-- The constants, `P` (the prefix of all keys), the clock and the rules of the lease clock are defined by `library.py`.
local NOW, changed

local function call(...) return redis.call(...) end
local function key(name) return P .. name end
local function int(number) return string.format('%.0f', number) end
local function meta(name) return tonumber(call('HGET', key('meta'), name) or '0') end

local function lease_clock() return meta('lease_clock') end

local function leases_end() return LeaseClock.leases_end(lease_clock(), meta('grace')) end
local function is_over(lease_end) return LeaseClock.is_over(lease_end, lease_clock(), meta('grace')) end

local function worker_key(id) return P .. 'w:' .. id end

local function remove_worker(id)
  call('ZREM', key('workers'), id)
  call('DEL', worker_key(id))
  changed = true
end

local function requests_of(entry)
  local found = {}
  for alias, requests in string.gmatch(entry, '\n(%S+) (%d+)') do found[#found + 1] = { alias, tonumber(requests) } end
  return found
end

-- For each model that has requests in a gateway's entry, stores the present time of the lease clock. An outage
-- advances this clock by at most one step, so the outage makes no model idle.
local function note_requests(entry)
  local now = int(lease_clock())
  for _, pair in ipairs(requests_of(entry)) do
    if pair[2] > 0 then call('HSET', key('last_request'), pair[1], now) end
  end
end

local function holder_of_placement()
  local lease = call('HMGET', key('lease'), 'holder', 'priority', 'end')
  if not lease[1] or is_over(lease[3]) then return nil end
  return lease[1], tonumber(lease[2])
end

local function snapshot(version)
  -- A tick removes a limited number of workers. So the snapshot leaves out stored workers whose leases are over.
  local clock, workers = lease_clock(), {}
  local after = leases_end() and '(' .. int(clock) or '-inf'
  for _, id in ipairs(call('ZRANGE', key('workers'), after, '+inf', 'BYSCORE')) do
    local stored = call('HMGET', worker_key(id), 'fixed', 'state', 'seen')
    if stored[1] then
      workers[#workers + 1] = id
      workers[#workers + 1] = stored[1]
      workers[#workers + 1] = stored[2]
      workers[#workers + 1] = stored[3] or '0'
    end
  end
  local sums, demand = {}, {}
  for _, entry in ipairs(call('HVALS', key('demand'))) do
    for _, pair in ipairs(requests_of(entry)) do sums[pair[1]] = (sums[pair[1]] or 0) + pair[2] end
  end
  local last = call('HGETALL', key('last_request'))
  for i = 1, #last, 2 do
    demand[#demand + 1] = last[i]
    demand[#demand + 1] = int(sums[last[i]] or 0)
    demand[#demand + 1] = int(math.max(0, clock - tonumber(last[i + 1])))
  end
  return { int(NOW), int(version), call('HGETALL', key('models')), workers, demand,
    call('GET', key('plan')) or '', holder_of_placement() or '' }
end

local ops = {}

function ops.view() return snapshot(meta('version')), 'view' end

function ops.tick()
  local ticked = tonumber(call('HGET', key('meta'), 'ticked_ms') or NOW)
  local clock, grace = LeaseClock.after(NOW - ticked, lease_clock(), meta('grace'))
  call('HSET', key('meta'), 'lease_clock', int(clock), 'ticked_ms', int(NOW), 'grace', int(grace))
  if leases_end() then
    local lost = call('ZRANGE', key('workers'), '-inf', int(clock), 'BYSCORE', 'LIMIT', 0, WORKERS_LOST_MAX)
    for _, id in ipairs(lost) do remove_worker(id) end
  end
  local entries = call('HGETALL', key('demand'))
  for i = 1, #entries, 2 do
    if is_over(string.match(entries[i + 1], '^%d+')) then
      call('HDEL', key('demand'), entries[i])
      changed = true
    else
      note_requests(entries[i + 1])
    end
  end
  for _, alias in ipairs(call('HKEYS', key('last_request'))) do
    if call('HEXISTS', key('models'), alias) == 0 then call('HDEL', key('last_request'), alias) end
  end
  return nil, 'view'
end

-- A model is stored as one digit and its JSON. The digit is `0`, or `1` once the model is marked as deleted.
function ops.add_model(alias, json)
  local stored = call('HGET', key('models'), alias)
  if stored then return stored == '0' .. json and 1 or 0 end
  call('HSET', key('models'), alias, '0' .. json)
  changed = true
  return 1
end

function ops.mark_deleted(alias)
  local stored = call('HGET', key('models'), alias)
  if not stored then return false end
  local marked = '1' .. string.sub(stored, 2)
  if marked ~= stored then
    call('HSET', key('models'), alias, marked)
    changed = true
  end
  return marked
end

function ops.remove_model(alias)
  local stored = call('HGET', key('models'), alias)
  if not stored or string.sub(stored, 1, 1) ~= '1' then return 0 end
  call('HDEL', key('models'), alias)
  call('HDEL', key('last_request'), alias)
  changed = true
  return 1
end

function ops.add_worker(id, incarnation, url, fixed, state, summary, lease_ms)
  local stored = call('HMGET', worker_key(id), 'incarnation', 'url')
  local lease_end = call('ZSCORE', key('workers'), id)
  if stored[1] and stored[1] ~= incarnation and stored[2] ~= url and lease_end and not is_over(lease_end) then
    return { 'taken', stored[2] }
  end
  call('HSET', worker_key(id), 'incarnation', incarnation, 'url', url, 'fixed', fixed, 'state', state,
    'summary', summary, 'seen', int(NOW))
  call('ZADD', key('workers'), int(lease_clock() + tonumber(lease_ms)), id)
  changed = true
  return { 'ok', '' }
end

function ops.renew_worker(id, incarnation, state, summary, lease_ms)
  local stored = call('HMGET', worker_key(id), 'incarnation', 'url', 'summary')
  if not stored[1] or not call('ZSCORE', key('workers'), id) then return { 'unknown', '' } end
  if stored[1] ~= incarnation then return { 'taken', stored[2] } end
  call('HSET', worker_key(id), 'state', state, 'summary', summary, 'seen', int(NOW))
  call('ZADD', key('workers'), int(lease_clock() + tonumber(lease_ms)), id)
  changed = stored[3] ~= summary
  return { 'ok', call('GET', key('plan')) or '' }
end

function ops.remove_worker(id, incarnation)
  if call('HGET', worker_key(id), 'incarnation') ~= incarnation then return 0 end
  remove_worker(id)
  return 1
end

-- `requests` has one entry for each model: a line break, then `alias number`.
function ops.publish_demand(gateway, requests, ttl_ms)
  local stored = call('HGET', key('demand'), gateway)
  if requests == '' then
    changed = call('HDEL', key('demand'), gateway) == 1
    return 1
  end
  local entry = int(lease_clock() + tonumber(ttl_ms)) .. requests
  call('HSET', key('demand'), gateway, entry)
  note_requests(entry)
  changed = not stored or string.match(stored, '\n.*') ~= requests
  return 1
end

function ops.hold_placement(holder, priority, ttl_ms)
  local present, of = holder_of_placement()
  if present and present ~= holder and of >= tonumber(priority) then return 0 end
  call('HSET', key('lease'), 'holder', holder, 'priority', priority, 'end', int(lease_clock() + tonumber(ttl_ms)))
  changed = present ~= holder
  return 1
end

function ops.release_placement(holder)
  if call('HGET', key('lease'), 'holder') == holder then
    call('DEL', key('lease'))
    changed = true
  end
  return 1
end

function ops.publish_plan(holder, json, workers_wanted)
  if holder_of_placement() ~= holder then return 0 end
  call('SET', key('plan'), json)
  local before, wanted = call('ZCARD', key('wanted')), math.min(WANTED_MAX, tonumber(workers_wanted))
  for n = before + 1, wanted do call('ZADD', key('wanted'), int(NOW), int(n)) end
  for n = wanted + 1, before do call('ZREM', key('wanted'), int(n)) end
  changed = true
  return 1
end

local function run(prefix, args)
  P, changed = prefix, false
  NOW = now_ms()
  local reply, kind = ops[args[1]](unpack(args, 2))
  local version = meta('version')
  if changed then
    version = version + 1
    call('HSET', key('meta'), 'version', int(version))
    call('XADD', key('changes'), 'MAXLEN', '~', CHANGES_MAX, int(version) .. '-0', 'op', args[1])
  end
  if kind == 'view' then return snapshot(version) end
  return reply
end
