#!lua flags=allow-oom,no-writes
-- Returns what the metrics of a pool need in addition to the answer of the script `pool`: totals, tenants' totals, the
-- waiting tasks by tenant and priority, and how far apart the virtual times of waiting tenants are.
-- Answers {totals, tenants' totals, tasks accepted, dead letters, waiting tasks, tenants, oldest waits, spread}. A tenant
-- is {name, weight, tasks by priority}. There is one oldest wait per priority, in ms. It is -1 if no task of this
-- priority waits.

-- Counts the waiting tasks of a tenant by priority.
local function examine(name)
  local key, counts = k_wait(name), {}
  for priority = 0, PRIORITIES - 1 do
    local upto = '(' .. exact((priority + 1) * PRIORITY_BAND)
    counts[priority + 1] = call('ZCOUNT', key, exact(priority * PRIORITY_BAND), upto)
  end
  return counts
end

local function spread()
  local first = call('ZRANGE', K_tenants, 0, 0, 'WITHSCORES')
  local last = call('ZRANGE', K_tenants, -1, -1, 'WITHSCORES')
  return first[2] and exact(tonumber(last[2]) - tonumber(first[2])) or '0'
end

local function run()
  local tenants = {}
  for _, name in ipairs(call('ZRANGE', K_tenants, 0, MEASURED_TENANTS_MAX - 1)) do
    local counts = examine(name)
    tenants[#tenants + 1] = { name, call('HGET', K_weights, name) or '1', counts }
  end
  local queued = call('ZCARD', K_live) - call('ZCARD', K_leases) - call('ZCARD', K_due_soon)
  return { call('HGETALL', K_totals), call('HGETALL', K_tenant_totals), meta('seq'), call('ZCARD', K_dead),
    queued, tenants, oldest_waits(), spread() }
end
