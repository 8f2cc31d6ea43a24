-- Running tasks: what an attempt costs, and every way in which it can end.
--
-- How it works: a claim gives the task to a group with a lease, which ends at a time of the lease clock, and with a
-- token that contains the number of the attempt. Every later write names the token. If another attempt has begun, or if
-- the lease has ended and `tick` has taken the task back, the token is no longer the stored one, and the script refuses
-- the write. So a leader that was frozen can write nothing to a task that another leader runs (fencing). An attempt ends
-- with a result, an error, a release or the end of its lease. An error of the task and a lost lease count as strikes. A
-- release counts as none.

-- The lease clock, interpolated between ticks. Attempts are billed by it, so that neither a step of the wall clock
-- (beyond LEASE_STEP_MS) nor an outage of Redis is charged.
local function steady()
  return meta('lease_clock') + math.max(0, math.min(NOW - (number('ticked_ms') or NOW), LEASE_STEP_MS))
end

-- Groups, by name. `tasks` has the ids of the tasks that the group holds, in the order of their claims; in Redis, the
-- field `tasks` has them separated by spaces. `stored_tasks`, `stored_state` and `idle_since` (when the group entered
-- `stored_state`) are the values that Redis has now. `ready_at` is when the group first became ready; it is nil if the
-- group has not measured its wake.
local groups, ledger

resets[#resets + 1] = function() groups, ledger = {}, {} end

local function group_of(name)
  local g = groups[name]
  if not g then
    local stored = call('HMGET', k_group(name), 'tasks', 'state', 'drain', 'since', 'ready_at')
    g = { name = name, tasks = {}, state = stored[2], drain = stored[3],
      idle_since = tonumber(stored[4] or nil), ready_at = tonumber(stored[5] or nil),
      stored_tasks = stored[1], stored_state = stored[2] }
    for id in string.gmatch(stored[1] or '', '%S+') do g.tasks[#g.tasks + 1] = id end
    groups[name] = g
  end
  return g
end

-- Gives the task to the group. The group is then busy.
local function group_takes(g, id)
  if g.state ~= 'busy' or #g.tasks == 0 then g.state, g.since = 'busy', NOW_TEXT end
  g.tasks[#g.tasks + 1] = id
end

-- Takes the task from the group. A group without tasks is idle. Returns whether the group held the task.
local function group_drops(g, id)
  for i, held in ipairs(g.tasks) do
    if held == id then
      table.remove(g.tasks, i)
      if #g.tasks == 0 and g.state == 'busy' then g.state, g.since = 'idle', NOW_TEXT end
      return true
    end
  end
  return false
end

local function discard(prefix, at) zput(K_garbage, prefix, int(at)) end

-- Bills the attempt: corrects the tenant's charge from the estimate to the actual time. If the attempt ended the task,
-- all of its time counts as used. Otherwise, only the time up to its checkpoint counts as used, and the rest is wasted.
-- This used time is pending until the task ends, because only then is it known whether the time led to a result.
local function bill(r, ended)
  local ranks, claimed = tonumber(r.ranks), tonumber(r.claimed)
  local all = ranks * math.max(0, steady() - claimed)
  local used = all
  if not ended then
    -- The clock may have been set back since the checkpoint.
    used = r.ckpt_at and math.min(all, ranks * math.max(0, tonumber(r.ckpt_at) - claimed)) or 0
  end
  local wasted, earlier = all - used, tonumber(r.used_ms or '0')
  local t = tenant(r.tenant)
  charge(t, all / 1000 / t.weight - tonumber(r.charge))
  set(r, 'used_ms', int(earlier + used))
  add_total('pending_ms', ended and -earlier or used)
  if wasted ~= 0 then set(r, 'wasted_ms', int(tonumber(r.wasted_ms or '0') + wasted)) end
  for name, ms in pairs({ used_ms = used, wasted_ms = wasted }) do
    if ms ~= 0 then
      local field = r.tenant .. ':' .. name
      ledger[field] = (ledger[field] or 0) + ms
    end
  end
end

-- Detaches the attempt from the task. `leader_may_write`: the leader did not end the attempt, and may still write
-- files.
-- The fields that describe the attempt (group, ranks, claimed, charge) stay until the next claim overwrites them.
local function detach(r, ended, leader_may_write, published)
  bill(r, ended)
  zdrop(K_leases, r.id)
  group_drops(group_of(r.group), r.id)
  if not published then discard(r.id .. '/' .. r.token .. '/', leader_may_write and NOW + ZOMBIE_MS or NOW) end
  set(r, 'token', '')  -- '' means no token. Unlike an HDEL, it needs no additional command.
  r.token = nil
  unset(r, 'ckpt_at')
  unset(r, 'last_event_number')
  unset(r, 'phase')
  unset(r, 'eta_s')
  if not ended then
    unset(r, 'fraction')
    unset(r, 'step')
    unset(r, 'steps')
    unset(r, 'resumed_from_step')
  end
end

-- The only way to a terminal state. The caller emits the event.
local function finish(r, state)
  -- Succeeded tasks need no count here: the histogram of run times counts them.
  if state ~= 'succeeded' then
    local used = tonumber(r.used_ms or '0')
    add_total('ended:' .. state .. ':' .. r.state, 1)
    add_total('wasted:' .. TOTALS.WASTES[state], used)
    if r.state ~= 'running' then add_total('pending_ms', -used) end
  end
  local ends = int(NOW + tonumber(r.retain))
  set(r, 'state', state)
  set(r, 'finished', NOW_TEXT)
  zdrop(K_live, r.id)
  zput(K_expiring, r.id, ends)
  if r.ckpt then
    call('HDEL', k_out(r.id), 'ckpt', 'ckpt_step')
    unset(r, 'ckpt')
    discard(r.id .. '/checkpoints/', NOW)
  end
end

local function finish_failed(r, err)
  finish(r, 'failed')
  zput(K_dead, r.id, NOW_TEXT)
  emit_change(r, 'failed', '{"error":' .. err .. ',' .. usage(r) .. '}')
end

-- Counts a running task that has stopped because of a cancel.
local function count_cancel(r)
  observe(histograms.cancels, math.max(0, NOW - tonumber(r.cancel_at)))
  observe(histograms.cancel_steps, math.max(0, tonumber(r.step or '0') - tonumber(r.cancel_step or '0')))
end

local function finish_cancelled(r)
  finish(r, 'cancelled')
  emit_change(r, 'cancelled', '{"reason":' .. cjson.encode(r.cancel_reason or 'requested') .. ',' .. usage(r) .. '}')
end

local function finish_expired(r)
  finish(r, 'expired')
  emit_change(r, 'expired', '{"reason":"' .. (r.started and 'run_within' or 'start_within') .. '",' .. usage(r) .. '}')
end

local function overdue(r) return r.run_by and NOW >= tonumber(r.run_by) end

local function backoff_ms(strikes, token)
  local unit = tonumber(string.sub(redis.sha1hex(token), 1, 8), 16) / 4294967296
  local full = math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ^ (strikes - 1))
  return math.floor(full * (0.5 + 0.5 * unit))
end

-- Ends an attempt that failed. Precedence: cancel, deadline (unless the error is permanent), strike.
local function end_failed_attempt(r, e)
  if r.cancel_at then
    detach(r, true, e.leader_may_write)
    count_cancel(r)
    return finish_cancelled(r)
  end
  if overdue(r) and not e.permanent then
    detach(r, true, e.leader_may_write)
    return finish_expired(r)
  end
  local strikes = tonumber(r.strikes or '0') + 1
  local final = e.permanent or strikes >= tonumber(r.max_strikes or MAX_STRIKES)
  local token = r.token
  local reason = one_of(TOTALS.RETRY_REASONS, e.reason, 'error')
  detach(r, final, e.leader_may_write)
  add_total('strikes:' .. reason, 1)
  local err = '{"code":' .. cjson.encode(e.code) .. ',"message":' .. cjson.encode(e.message)
    .. ',"attempt":' .. r.attempt .. '}'
  call('HSET', k_out(r.id), 'error', err)
  set(r, 'strikes', int(strikes))
  if final then return finish_failed(r, err) end
  add_total('retries:' .. reason, 1)
  local wait = backoff_ms(strikes, token)
  delay(r, NOW + wait)
  arm(r)
  emit_change(r, 'retrying', '{"reason":' .. cjson.encode(e.reason) .. ',"strikes":' .. int(strikes)
    .. ',"delay_s":' .. seconds(wait) .. ',"message":' .. cjson.encode(e.message) .. '}')
end

-- Releases a task: it returns to its old place in the queue without a strike, unless it was released too often.
-- `group_failed`: the group failed instead of releasing the task. The limit of such failures is lower than that of
-- releases, because each failure costs the pool a restart.
local function release(r, why, group_failed)
  local leader_may_write = group_failed  -- A leader that releases its task writes nothing more.
  if r.cancel_at or overdue(r) then return end_failed_attempt(r, { leader_may_write = leader_may_write }) end
  local failures = tonumber(r.group_failures or '0')
  if group_failed and failures >= GROUP_FAILURES_MAX then
    return end_failed_attempt(r, { reason = 'error', code = 'group_failed', leader_may_write = leader_may_write,
      message = 'The groups that ran this task failed more than ' .. GROUP_FAILURES_MAX
      .. ' times. Look for the cause in their logs. Last failure: ' .. why })
  end
  local releases = tonumber(r.releases or '0') + 1
  if releases > RELEASES_MAX then
    return end_failed_attempt(r, { reason = 'released', code = 'released', leader_may_write = leader_may_write,
      message = 'The task was released more than ' .. RELEASES_MAX .. ' times. Last reason: ' .. why })
  end
  detach(r, false, leader_may_write)
  add_total('releases:' .. one_of(TOTALS.RELEASE_REASONS, why, TOTALS.OTHER), 1)
  set(r, 'releases', int(releases))
  if group_failed then set(r, 'group_failures', int(failures + 1)) end
  emit_change(r, 'retrying', '{"reason":"released","strikes":' .. (r.strikes or '0')
    .. ',"delay_s":0,"message":' .. cjson.encode(why) .. '}')
  enqueue(r)
  arm(r)
end

-- The tasks that the store has given to the group and that the group does not know. `known`: the ids of the tasks that
-- it knows, separated by spaces. The group does not know a task if the answer to its claim was lost, or if the group
-- has restarted. A group that leaves has given its tasks up, so it names none.
local function unknown_tasks(g, known)
  local is_known, found = {}, {}
  for id in string.gmatch(known or '', '%S+') do is_known[id] = true end
  for _, id in ipairs(g.tasks) do
    if not is_known[id] then found[#found + 1] = id end
  end
  return found
end

local function is_held(r, name) return r and r.state == 'running' and r.group == name end

local function release_unknown(name, why, known)
  local g = group_of(name)
  for _, id in ipairs(unknown_tasks(g, known)) do
    local r = load_task(id)
    if is_held(r, name) then release(r, why, true) end
    group_drops(g, id)
  end
end

-- The control bits that every reply to a leader carries.
local function control(r)
  local bits = 0
  if r.cancel_at then bits = bits + CANCEL end
  if overdue(r) then bits = bits + EXPIRE end
  if group_of(r.group).drain then bits = bits + DRAIN end
  return bits
end

flushes[#flushes + 1] = function()
  for name, g in pairs(groups) do
    local changes = {}
    local held = #g.tasks > 0 and table.concat(g.tasks, ' ')
    if held ~= g.stored_tasks then changes.tasks = held end
    if g.since then changes.since, changes.ranks = g.since, g.ranks end
    if g.state ~= g.stored_state then changes.state = g.state end
    if next(changes) ~= nil then hflush(k_group(name), changes) end
    g.stored_tasks, g.stored_state, g.since, g.ranks = held, g.state, nil, nil
  end
  if next(ledger) == nil then return end
  local key = k_ledger(int(math.floor(NOW / DAY_MS)))
  for field, ms in pairs(ledger) do
    -- The first entry of each tenant sets the TTL of the day's ledger. Setting it again does no harm.
    if call('HINCRBY', key, field, int(ms)) == ms then call('EXPIRE', key, LEDGER_S) end
    local name, kind = string.match(field, '^(.*):([^:]*)$')
    tenant_totals.bill(name, kind, ms)
  end
  ledger = {}
end
