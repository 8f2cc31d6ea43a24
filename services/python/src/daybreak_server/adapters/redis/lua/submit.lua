#!lua
-- Accepts tasks, one after the other, each whole: record, parameters, index, queue entry and event. The one script
-- that is refused when memory is full: that is what keeps the memory for running tasks.
-- ARGV: how many may wait, then sixteen of each task, as `accept` takes them. Answers one item for each: what
-- came of it, then a task as `show` says it, or of a new one {created, state, position, wait, event}.
local ARGS = 16
local max_queued, waiting_now

local function known(id)
  flush()
  return { 'known', show(id) }
end

-- The task that an idempotency key made, if the key is known.
local function replayed(idem, body_hash)
  local held = call('GET', k_idem(idem))
  if not held then return nil end
  local id, hash = string.match(held, '^(%S+) (.*)$')
  if hash ~= body_hash then return { 'mismatch', id } end
  flush()
  return { 'replayed', show(id) }
end

local function weigh(t, weight)
  if tonumber(weight) == t.weight then return end
  t.weight = tonumber(weight)
  if crowd and crowd_by[t.name] then crowd_by[t.name].weight = t.weight end
  if t.weight == 1 then call('HDEL', K_weights, t.name) else call('HSET', K_weights, t.name, weight) end
end

-- How many of the tenant's own come before `order`: all of them, mostly, so that the last one's is remembered.
local function ahead_of(t, order)
  local key = k_wait(t.name)
  if not t.last then
    t.count = call('ZCARD', key)
    t.waits = t.count > 0
    t.last = t.waits and tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]) or 0
  end
  if order > t.last then return t.count end
  zflush(key)
  return call('ZCOUNT', key, '-inf', '(' .. int(order))
end

local function queue_up(r, t, order, start_at)
  local ahead = ahead_of(t, order)
  if start_at and start_at > NOW then
    delay(r, start_at)
  else
    enqueue(r)
    t.count, t.last = t.count + 1, math.max(t.last, order)
    if crowd then joined(t) end
  end
  arm(r)
  return place_of(t, ahead, r.est)
end

local function accept(ARGV, at, fresh)
  local id, tenant_name, order_base, cost, est, weight, start_at, start_within, run_within, max_strikes, retain, idem,
    body_hash, replay_of, spec_version, spec = unpack(ARGV, at, at + ARGS - 1)
  -- The same id again is the same submit whose answer was lost.
  if tasks[id] or (not fresh and call('EXISTS', k_task(id)) == 1) then return known(id) end
  local before = idem ~= '' and replayed(idem, body_hash)
  if before then return before end
  waiting_now = waiting_now or waiting()
  if waiting_now >= max_queued then return { 'full' } end
  waiting_now = waiting_now + 1

  add_meta('seq', 1)
  local t, order = tenant(tenant_name), tonumber(order_base) * PRIORITY_BAND + meta('seq')
  local r = { id = id }
  tasks[id] = r
  set(r, 'tenant', tenant_name)
  set(r, 'order', int(order))
  set(r, 'est', est)
  set(r, 'cost', cost)
  set(r, 'retain', retain)
  set(r, 'created', NOW_TEXT)
  start_at, start_within = tonumber(start_at), tonumber(start_within)
  if tonumber(max_strikes) ~= MAX_STRIKES then set(r, 'max_strikes', max_strikes) end
  if tonumber(spec_version) ~= FIRST_SPEC_VERSION then set(r, 'spec_version', spec_version) end
  if replay_of ~= '' then set(r, 'replay_of', replay_of) end
  if idem ~= '' then
    set(r, 'idem', idem)
    call('SET', k_idem(idem), id .. ' ' .. body_hash)
  end
  if start_at then set(r, 'start_at', int(start_at)) end
  if run_within ~= '' then set(r, 'run_within', run_within) end
  if start_within then set(r, 'start_by', int(math.max(start_at or 0, NOW) + start_within)) end
  weigh(t, weight)
  call('SET', k_spec(id), spec)
  zput(k_index(tenant_name), id, '0')
  local place = queue_up(r, t, order, start_at)
  local wait = wait_s(place, r.state == 'delayed' and start_at or nil)
  set(r, 'pos', int(place))
  emit_told(r, 'qev', 'queued', queued_data(r.pos))
  return { 'new', r.created, r.state, r.pos, wait and exact(wait) or '', r.qev }
end

local function run(ARGV)
  max_queued, waiting_now = tonumber(ARGV[1]), nil
  local names, answers = {}, {}
  for at = 2, #ARGV, ARGS do names[#names + 1] = k_task(ARGV[at]) end
  local fresh = call('EXISTS', unpack(names)) == 0
  for at = 2, #ARGV, ARGS do answers[#answers + 1] = accept(ARGV, at, fresh) end
  flush()
  return answers
end
