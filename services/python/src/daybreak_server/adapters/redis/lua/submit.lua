#!lua
-- include: clock common queue show
-- Accepts one task: record, parameters, index, queue entry and event, or nothing. The one script that is
-- refused when memory is full: that is what keeps the memory for running tasks.
local id, tenant, order_base, cost, est, weight = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local start_at, start_within, run_within = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local max_strikes, retain, idem, body_hash = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local replay_of, spec_version, spec, max_queued = ARGV[14], ARGV[15], ARGV[16], tonumber(ARGV[17])

-- The same id again is the same submit whose answer was lost.
if redis.call('EXISTS', k_task(id)) == 1 then return { 'new', show(id) } end
if idem ~= '' then
  local held = redis.call('GET', k_idem(idem))
  if held then
    local known, hash = string.match(held, '^(%S+) (.*)$')
    if hash ~= body_hash then return { 'mismatch', known } end
    return { 'replayed', show(known) }
  end
end
if waiting() >= max_queued then return { 'full' } end

local PRIORITY_BAND = 1125899906842624  -- 2^50: a priority outweighs any place in the queue
local seq = redis.call('HINCRBY', K_meta, 'seq', 1)
local r = { tenant = tenant, order = int(tonumber(order_base) * PRIORITY_BAND + seq), est = est }
local fields = { 'tenant', tenant, 'order', r.order, 'est', est, 'cost', cost, 'retain', retain, 'created', int(NOW) }
local function set(name, value)
  r[name] = value
  fields[#fields + 1], fields[#fields + 2] = name, value
end
if max_strikes ~= '3' then set('max_strikes', max_strikes) end
if spec_version ~= '1' then set('spec_version', spec_version) end
if replay_of ~= '' then set('replay_of', replay_of) end
if idem ~= '' then set('idem', idem) end
if start_at then set('start_at', int(start_at)) end
if run_within ~= '' then set('run_within', run_within) end
if start_within then set('start_by', int(math.max(start_at or 0, NOW) + start_within)) end

if tonumber(weight) == 1 then redis.call('HDEL', K_weights, tenant) else redis.call('HSET', K_weights, tenant, weight) end
redis.call('HSET', k_task(id), unpack(fields))
redis.call('SET', k_spec(id), spec)
redis.call('ZADD', k_index(tenant), 0, id)
if idem ~= '' then redis.call('SET', k_idem(idem), id .. ' ' .. body_hash) end
if start_at and start_at > NOW then
  delay(id, r, start_at)
else
  enqueue(id, r)
end
arm(id, r)
local place = position(r)
local wait = wait_s(place, r.state == 'delayed' and start_at or nil)
set('pos', int(place))
local qev = redis.call('XADD', K_events, 'MAXLEN', '~', EVENTS_MAX, '*',
  'task', id, 'type', 'queued', 'attempt', '0', 'data', queued_data(r))
redis.call('HSET', k_task(id), 'pos', r.pos, 'qev', qev)
set('qev', qev)
set('state', r.state)
return { 'new', { id, fields, spec, {}, r.pos, wait and exact(wait) or '', qev } }  -- as show(id) would say it
