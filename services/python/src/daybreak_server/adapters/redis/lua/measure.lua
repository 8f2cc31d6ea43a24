#!lua flags=allow-oom,no-writes
-- What metrics show of a pool beyond its view: totals, billed tenants, the waiting tasks by tenant and priority, and how
-- far apart the virtual times of waiting tenants are.
-- Answers {totals, tenants' totals, tasks accepted, dead letters, waiting tasks, tenants, oldest waits, spread}. A tenant
-- is {name, weight, tasks by priority}. An oldest wait is in ms, or -1 if no task of that priority waits.

local function wait_ms(id)
  local times = call('HMGET', k_task(id), 'queued', 'created')
  local since = tonumber(times[1] or times[2] or nil)
  return since and math.max(0, NOW - since) or 0
end

-- Counts a tenant's queue by priority. Its first task of each priority is the oldest of those that never waited before.
local function examine(name, oldest)
  local key, counts, from = k_wait(name), {}, 0
  for priority = 0, PRIORITIES - 1 do
    local upto = '(' .. exact((priority + 1) * PRIORITY_BAND)
    local count = call('ZCOUNT', key, exact(priority * PRIORITY_BAND), upto)
    counts[priority + 1] = count
    if count > 0 then
      oldest[priority + 1] = math.max(oldest[priority + 1], wait_ms(call('ZRANGE', key, from, from)[1]))
    end
    from = from + count
  end
  return counts
end

local function spread()
  local first = call('ZRANGE', K_tenants, 0, 0, 'WITHSCORES')
  local last = call('ZRANGE', K_tenants, -1, -1, 'WITHSCORES')
  return first[2] and exact(tonumber(last[2]) - tonumber(first[2])) or '0'
end

local function run()
  local oldest, tenants = {}, {}
  for priority = 1, PRIORITIES do oldest[priority] = -1 end
  for _, name in ipairs(call('ZRANGE', K_tenants, 0, MEASURED_TENANTS_MAX - 1)) do
    local counts = examine(name, oldest)
    tenants[#tenants + 1] = { name, call('HGET', K_weights, name) or '1', counts }
  end
  local queued = call('ZCARD', K_live) - call('ZCARD', K_leases) - call('ZCARD', K_due_soon)
  return { call('HGETALL', K_totals), call('HGETALL', K_tenant_totals), meta('seq'), call('ZCARD', K_dead),
    queued, tenants, oldest, spread() }
end
