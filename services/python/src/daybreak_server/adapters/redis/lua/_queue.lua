-- include: clock common
-- The waiting side: fair queue, delays, deadlines, the bell.
local BELL_MAX = 64
local RUNNING_BAND = 4503599627370496  -- 2^52: in `live`, running tasks sort behind all that wait

local function ring()
  if redis.call('LLEN', K_bell) < BELL_MAX then redis.call('RPUSH', K_bell, '1') end
end

local function weight_of(tenant) return tonumber(redis.call('HGET', K_weights, tenant) or '1') end

-- A tenant that comes back after idling starts where the pool is now: not behind it, which would starve others.
local function enter_share(tenant)
  local own = tonumber(redis.call('HGET', K_shares, tenant) or '0')
  local at = math.max(own, meta('vtime'))
  redis.call('HSET', K_shares, tenant, exact(at))
  redis.call('ZADD', K_tenants, exact(at), tenant)
end

local function charge(tenant, amount)
  local at = tonumber(redis.call('HGET', K_shares, tenant) or '0') + amount
  redis.call('HSET', K_shares, tenant, exact(at))
  redis.call('ZADD', K_tenants, 'XX', exact(at), tenant)
end

local function enqueue(id, r)
  if redis.call('EXISTS', k_wait(r.tenant)) == 0 then enter_share(r.tenant) end
  redis.call('ZADD', k_wait(r.tenant), r.order, id)
  redis.call('ZADD', K_live, int(NOW), id)
  redis.call('HSET', k_task(id), 'state', 'queued')
  r.state = 'queued'
  ring()
end

local function delay(id, r, due)
  if due - meta('wake_ms') <= NOW then
    redis.call('ZADD', K_soon, int(due), id)
    redis.call('ZADD', K_live, int(due), id)
  else
    redis.call('ZADD', K_delayed, int(due), id)
    redis.call('ZREM', K_live, id)
  end
  redis.call('HSET', k_task(id), 'state', 'delayed')
  r.state = 'delayed'
end

-- Until a task has begun once its deadline is to begin; from then on it is to end.
local function arm(id, r)
  local at = r.started and r.run_by or (not r.started and r.start_by)
  if at then redis.call('ZADD', K_timers, at, id) end
end

local function leave_queue(id, r)
  if r.state == 'queued' then
    redis.call('ZREM', k_wait(r.tenant), id)
    if redis.call('EXISTS', k_wait(r.tenant)) == 0 then redis.call('ZREM', K_tenants, r.tenant) end
  else
    redis.call('ZREM', K_delayed, id)
    redis.call('ZREM', K_soon, id)
  end
  redis.call('ZREM', K_timers, id)
end

local function waiting()
  return redis.call('ZCARD', K_live) - redis.call('ZCARD', K_leases) + redis.call('ZCARD', K_delayed)
end
