-- The pool's totals for metrics: counts, nearly all of which only grow, in the hashes K_totals and K_tenant_totals.
-- domain/pool_totals.py explains the totals.
--
-- Each count costs a command. So for each task, scripts count only what no other total implies: the wait when the task
-- is claimed, and the run time when it succeeds. A histogram named `x` has the field `x:sum`, and one field
-- `x:<place>` for each bucket, where `<place>` is the position of the bucket.

local function histogram(name, bounds)
  local fields = { sum = name .. ':sum', bounds = bounds }
  for place = 1, #bounds + 1 do fields[place] = name .. ':' .. place end
  return fields
end

-- The names of the fields are made once, because making a name costs as much as counting.
local histograms = {
  waits = {},  -- by priority
  runs = histogram('run', TOTALS.RUN_BUCKETS_MS),
  cancels = histogram('cancel', TOTALS.CANCEL_BUCKETS_MS),
  cancel_steps = histogram('cancel_steps', TOTALS.CANCEL_STEP_BUCKETS),
}
for priority = 0, PRIORITIES - 1 do
  histograms.waits[priority] = histogram('wait:' .. priority, TOTALS.WAIT_BUCKETS_MS)
end

local function observe(fields, value)
  local bounds, place = fields.bounds, 1
  while bounds[place] and value > bounds[place] do place = place + 1 end
  local count, sum = fields[place], fields.sum
  totals[count] = (totals[count] or 0) + 1
  totals[sum] = (totals[sum] or 0) + value
end

local function one_of(reasons, reason, otherwise) return reasons[reason] and reason or otherwise end

-- The GPU time of tenants. The first `tenants_max` tenants have totals of their own in K_tenant_totals, two fields for
-- each tenant. K_totals has the time of all other tenants in the fields of `other`, and the time of deleted tenants in
-- the fields of `deleted`. All these times together are the pool's total.
local tenant_totals = {}

-- Gives a tenant totals of its own, which start at 0, if there is room for another tenant. Returns whether the tenant
-- now has totals of its own.
function tenant_totals.add(name)
  if name == TOTALS.OTHER then return false end
  if call('HEXISTS', K_tenant_totals, name .. ':used_ms') == 1 then return true end
  local most = tonumber(call('HGET', K_totals, 'tenants_max') or TOTALS.TENANTS_MAX)
  if call('HLEN', K_tenant_totals) >= 2 * most then return false end
  call('HSET', K_tenant_totals, name .. ':used_ms', '0', name .. ':wasted_ms', '0')
  return true
end

function tenant_totals.bill(name, kind, ms)
  local field = name .. ':' .. kind
  if call('HINCRBY', K_tenant_totals, field, int(ms)) ~= ms then return end
  -- The field was 0 or did not exist.
  if call('HEXISTS', K_tenant_totals, name .. (kind == 'used_ms' and ':wasted_ms' or ':used_ms')) == 1 then return end
  call('HDEL', K_tenant_totals, field)
  if tenant_totals.add(name) then
    call('HINCRBY', K_tenant_totals, field, int(ms))
  else
    add_total(TOTALS.OTHER .. ':' .. kind, ms)
  end
end

-- Removes the totals of a tenant that has no task left, and adds them to the totals of deleted tenants.
function tenant_totals.remove(name)
  for _, kind in ipairs({ ':used_ms', ':wasted_ms' }) do
    local ms = tonumber(call('HGET', K_tenant_totals, name .. kind) or '0')
    if ms > 0 then call('HINCRBY', K_totals, TOTALS.DELETED .. kind, ms) end
    call('HDEL', K_tenant_totals, name .. kind)
  end
end
