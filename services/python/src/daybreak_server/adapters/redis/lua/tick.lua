#!lua flags=allow-oom
-- Does everything in a pool that depends on time: advances the lease clock, promotes due tasks, ends attempts whose
-- lease is lost, expires tasks, marks groups as lost, and releases or ends sessions. Every gateway calls it each
-- second; each call does a bounded amount of work.
local limit, more

local function due(key, upto)
  flush()
  local ids = call('ZRANGE', key, '-inf', int(upto), 'BYSCORE', 'LIMIT', 0, limit)
  if #ids == limit then more = 1 end
  return ids
end

-- Advances the lease clock. Returns its time, and whether leases may end now.
local function advance_lease_clock()
  local before, grace = meta('lease_clock'), meta('grace')
  local lease_clock, new_grace = LeaseClock.after(NOW - (number('ticked_ms') or NOW), before, grace)
  add_meta('lease_clock', lease_clock - before)
  set_meta('ticked_ms', NOW, NOW_TEXT)
  if new_grace ~= grace then set_meta('grace', new_grace, int(new_grace)) end
  return lease_clock, LeaseClock.leases_end(lease_clock, new_grace)
end

-- Adds up the time of groups that hold no task, of groups that start, and of groups that answer requests. The time of
-- an attempt is added when the attempt ends. These groups have no attempt, so ticks sample their time.
local function meter_groups(lease_clock)
  local metered = tonumber(call('HGET', K_totals, 'metered') or nil)
  local passed = lease_clock - (metered or lease_clock)
  if metered and passed < TOTALS.METER_MS then return end
  call('HSET', K_totals, 'metered', int(lease_clock))
  for _, group in ipairs(call('ZRANGE', K_groups, 0, GROUPS_MAX - 1)) do
    local stored = call('HMGET', k_group(group), 'state', 'tasks', 'ranks', 'endpoint')
    local state, time = stored[1], passed * tonumber(stored[3] or '1')
    if state == 'starting' or state == 'loading' then
      add_total('cold_ms', time)
    elseif state and state ~= 'lost' and not stored[2] then
      add_total(state == 'busy' and stored[4] and 'serving_ms' or 'idle_ms', time)
    end
  end
end

local function run(ARGV)
  local a = read.tick_limit(ARGV, 1)
  limit, more = tonumber(a.limit), 0
  local lease_clock, leases_expire = advance_lease_clock()
  call('HSET', K_totals, 'tenants_max', a.tenants_max, 'note', TOTALS.NOTE)
  meter_groups(lease_clock)
  local equal = 1 - call('EXISTS', K_weights)
  if number('equal_weights') ~= equal then set_meta('equal_weights', equal, int(equal)) end

  for _, id in ipairs(due(K_delayed, NOW + meta('wake_ms'))) do
    local at = call('ZSCORE', K_delayed, id)
    zdrop(K_delayed, id)
    zput(K_due_soon, id, at)
    zput(K_live, id, at)
  end

  local expired = 0
  for _, id in ipairs(due(K_timers, NOW)) do
    local r = load_task(id)
    leave_queue(r)
    finish_expired(r)
    expired = expired + 1
  end

  local promoted = 0
  for _, id in ipairs(due(K_due_soon, NOW)) do
    zdrop(K_due_soon, id)
    local r = load_task(id)
    enqueue(r)
    report_change(r, 'queued', '{}')
    promoted = promoted + 1
  end
  add_total('promoted', promoted)

  local reaped = 0
  for _, id in ipairs(leases_expire and due(K_leases, lease_clock) or {}) do
    local r = load_task(id)
    end_failed_attempt(r, { reason = 'lease_lost', code = 'lease_lost', leader_may_write = true,
      message = 'Group ' .. r.group .. ' stopped renewing the lease of the task. The log of the group may say why.' })
    reaped = reaped + 1
  end
  add_total('leases_lost', reaped)

  for _, group in ipairs(leases_expire and due(K_groups, lease_clock) or {}) do
    zdrop(K_groups, group)
    add_total('groups_lost', 1)
    zput(K_gone, group, int(lease_clock + GONE_MS))
    call('HSET', k_group(group), 'state', 'lost', 'since', NOW_TEXT)
  end
  call('ZREMRANGEBYSCORE', K_cordoned, '-inf', int(lease_clock))
  for _, group in ipairs(due(K_gone, lease_clock)) do
    zdrop(K_gone, group)
    call('DEL', k_group(group))
  end
  if S.tick(lease_clock, leases_expire, limit) then more = 1 end
  want_groups(a.target_load)

  -- The caller deletes the files. If it dies first, a later tick reports them to another gateway.
  local retention = due(K_expiring, NOW)
  for _, id in ipairs(retention) do zput(K_expiring, id, int(NOW + CLEANUP_RETRY_MS)) end
  local garbage = due(K_garbage, NOW)
  for _, prefix in ipairs(garbage) do zput(K_garbage, prefix, int(NOW + CLEANUP_RETRY_MS)) end

  recheck = true
  flush()
  return { promoted, reaped, expired, retention, garbage, more }
end
