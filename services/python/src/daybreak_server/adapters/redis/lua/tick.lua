#!lua flags=allow-oom
-- include: clock common queue attempt
-- Keeps the queue moving. Every gateway calls it each second; each call does a bounded amount of work.
local LIMIT, HANDED_OUT_MS, GONE_MS = tonumber(ARGV[1]), 60000, 300000
local more = 0

local function due(key, upto)
  local ids = redis.call('ZRANGE', key, '-inf', int(upto), 'BYSCORE', 'LIMIT', 0, LIMIT)
  if #ids == LIMIT then more = 1 end
  return ids
end

-- Time without ticks (an outage of Redis, or of all gateways) hardly counts: it ends no lease.
local last = tonumber(redis.call('HGET', K_meta, 'ticked_ms') or nil) or NOW
local step = math.max(0, math.min(NOW - last, LEASE_STEP_MS))
local lease_clock = redis.call('HINCRBY', K_meta, 'lease_clock', int(step))
redis.call('HSET', K_meta, 'ticked_ms', int(NOW))

for _, id in ipairs(due(K_delayed, NOW + meta('wake_ms'))) do
  local at = redis.call('ZSCORE', K_delayed, id)
  redis.call('ZREM', K_delayed, id)
  redis.call('ZADD', K_soon, at, id)
  redis.call('ZADD', K_live, at, id)
end

local expired = 0
for _, id in ipairs(due(K_timers, NOW)) do
  local r = load_task(id)
  leave_queue(id, r)
  finish_expired(id, r)
  expired = expired + 1
end

local promoted = 0
for _, id in ipairs(due(K_soon, NOW)) do
  redis.call('ZREM', K_soon, id)
  enqueue(id, load_task(id))
  promoted = promoted + 1
end

local reaped = 0
for _, id in ipairs(due(K_leases, lease_clock)) do
  local r = load_task(id)
  strike(id, r, { reason = 'lease_lost', code = 'lease_lost', zombie = true,
    message = 'group ' .. r.group .. ' went silent' })
  reaped = reaped + 1
end

for _, group in ipairs(due(K_groups, lease_clock)) do
  redis.call('ZREM', K_groups, group)
  redis.call('ZADD', K_gone, int(lease_clock + GONE_MS), group)
  redis.call('HSET', k_group(group), 'state', 'lost', 'since', int(NOW))
end
for _, group in ipairs(due(K_gone, lease_clock)) do
  redis.call('ZREM', K_gone, group)
  redis.call('DEL', k_group(group))
end

-- Deleting files is the caller's; who dies over it loses the job to another after a while.
local retention = due(K_sweep, NOW)
for _, id in ipairs(retention) do redis.call('ZADD', K_sweep, int(NOW + HANDED_OUT_MS), id) end
local garbage = due(K_garbage, NOW)
for _, prefix in ipairs(garbage) do redis.call('ZADD', K_garbage, int(NOW + HANDED_OUT_MS), prefix) end

if redis.call('EXISTS', K_tenants) == 1 and redis.call('EXISTS', K_bell) == 0 then ring() end
return { promoted, reaped, expired, retention, garbage, more }
