-- The pool's totals for metrics: counts that only grow, in one hash. domain/pool_totals.py says what they mean.
--
-- Each costs a command, so the paths of every task count only what nothing else implies: a claim its wait, a success its
-- run time. A histogram `name` has the fields `name:<place of the bucket>` and `name:sum`.

local function observe(name, bounds, value)
  local place, count = 1, #bounds
  while place <= count and value > bounds[place] do place = place + 1 end
  add_total(name .. ':' .. place, 1)
  add_total(name .. ':sum', value)
end

local function one_of(reasons, reason, otherwise) return reasons[reason] and reason or otherwise end

-- Bills a tenant: the first `tenants_max` tenants have totals of their own, the others share those of `other`.
local function bill_tenant(name, kind, ms)
  local field = name .. ':' .. kind
  if call('HINCRBY', K_tenant_totals, field, int(ms)) ~= ms then return end
  -- The field is new, or had 0. A tenant has both fields from its first bill on.
  local sibling = name .. ':' .. (kind == 'used_ms' and 'wasted_ms' or 'used_ms')
  if call('HEXISTS', K_tenant_totals, sibling) == 1 then return end
  local most = tonumber(call('HGET', K_totals, 'tenants_max') or TENANTS_MAX)
  if name == OTHER or call('HLEN', K_tenant_totals) - 1 < 2 * most then
    call('HSET', K_tenant_totals, sibling, '0')
  else
    call('HDEL', K_tenant_totals, field)
    bill_tenant(OTHER, kind, ms)
  end
end
