-- The pool's totals for metrics: counts that only grow, in one hash. domain/pool_totals.py says what they mean.
--
-- Each costs a command, so the paths of every task count only what nothing else implies: a claim its wait, a success its
-- run time. A histogram `name` has the fields `name:<place of the bucket>` and `name:sum`.

local function histogram(name, bounds)
  local fields = { sum = name .. ':sum', bounds = bounds }
  for place = 1, #bounds + 1 do fields[place] = name .. ':' .. place end
  return fields
end

-- Made once, because joining the names of fields costs as much as counting.
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

-- Bills a tenant: the first `tenants_max` tenants have totals of their own, the others share those of `other`. The sum of
-- all is the pool's total, so a tenant that is deleted leaves its own to the tenant without a name.
local function bill_tenant(name, kind, ms)
  local field = name .. ':' .. kind
  if call('HINCRBY', K_tenant_totals, field, int(ms)) ~= ms then return end
  -- The field is new, or had 0. A tenant has both fields from its first bill on.
  local sibling = name .. ':' .. (kind == 'used_ms' and 'wasted_ms' or 'used_ms')
  if call('HEXISTS', K_tenant_totals, sibling) == 1 then return end
  local most = tonumber(call('HGET', K_totals, 'tenants_max') or TOTALS.TENANTS_MAX)
  if name == TOTALS.OTHER or call('HLEN', K_tenant_totals) - 1 < 2 * most then
    call('HSET', K_tenant_totals, sibling, '0')
  else
    call('HDEL', K_tenant_totals, field)
    bill_tenant(TOTALS.OTHER, kind, ms)
  end
end

local function unbill_tenant(name)
  for _, kind in ipairs({ ':used_ms', ':wasted_ms' }) do
    local ms = tonumber(call('HGET', K_tenant_totals, name .. kind) or '0')
    if ms > 0 then call('HINCRBY', K_tenant_totals, kind, ms) end
    call('HDEL', K_tenant_totals, name .. kind)
  end
end
