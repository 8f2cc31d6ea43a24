-- Gives a group the next task in fair order. Used by `claim`, and by `settle` for the next task of the same group.

local function claim_reply(r)
  local out = r.ckpt and call('HMGET', k_out(r.id), 'ckpt', 'ckpt_step') or {}
  return { 'task', r.id, r.token, r.attempt, r.tenant, call('GET', k_spec(r.id)) or '',
    out[1] or '', out[2] or '', control(r), r.queued or r.created }
end

-- Counts how long a claimed task has waited; 0 if the clock was set back during the wait. If the group was idle before
-- the task came, also counts the task as `matched`.
local function count_claim(r, g)
  local since = tonumber(r.queued or r.created)
  observe(histograms.waits[math.floor(r.order / PRIORITY_BAND)], math.max(0, NOW - since))
  if g.stored_state == 'idle' and not g.since and g.idle_since and g.idle_since <= since then add_total('matched', 1) end
end

-- The wake that the task waited for, as a field of its `started` event; nil if the group was ready before the task came.
local function wake_field(r, g)
  if not g.ready_at or g.ready_at <= tonumber(r.created) then return nil end
  local stamps = call('HGET', k_group(g.name), 'stamps')
  return ',"wake":' .. stamps .. ',"since_ready_s":' .. seconds(math.max(0, NOW - g.ready_at)) .. '}'
end

local function start(r, c, terms, g, t)
  leave_queue(r)
  count_claim(r, g)
  if t.share > meta('vtime') then set_meta('vtime', t.share, exact(t.share)) end
  local cost = tonumber(r.est) / t.weight
  charge(t, cost)
  local earlier = r.attempt
  set(r, 'attempt', int(tonumber(earlier or '0') + 1))
  set(r, 'state', 'running')
  set(r, 'token', r.attempt .. '.' .. terms.nonce)
  set(r, 'group', c.group)
  set(r, 'ranks', c.ranks)
  set(r, 'claimed', int(steady()))
  set(r, 'charge', exact(cost))
  if not r.started then
    set(r, 'started', NOW_TEXT)
    if r.run_within then set(r, 'run_by', int(NOW + tonumber(r.run_within))) end
  end
  local lease = int(meta('lease_clock') + tonumber(terms.lease_ms))
  zput(K_leases, r.id, lease)
  zput(K_live, r.id, int(RUNNING_BAND + NOW))
  if not g.state or g.state == 'lost' then  -- the group has not registered yet, or counted as lost until now
    zput(K_groups, c.group, lease)
    zdrop(K_gone, c.group)
    g.ranks = c.ranks
  end
  group_takes(g, r.id)
  local data, wake = started_data(c.group, c.ranks), wake_field(r, g)
  if not earlier and not wake then return emit_in_record(r, 'started_event_id', 'started', data .. '}') end
  if wake then data = data .. wake end
  if r.ckpt then data = data .. ',"resumed_from_step":' .. call('HGET', k_out(r.id), 'ckpt_step') end
  emit(r, 'started', data .. '}')
end

-- `c`: the claimant. `want`: how many tasks this script may claim. The first element of the reply says what happened:
-- 'task' (the claim follows), 'drain', 'none' (nothing waits), 'other' (tasks wait, but not for this group) or 'again'
-- (the limit of one call was reached; call again).
local function claim_next(c, terms, want)
  local g = group_of(c.group)
  recheck = true
  if c.draining == '1' or g.drain then return { 'drain' } end
  local spec_version = tonumber(terms.spec_version)
  local expired, i = 0, 0
  while i < CLAIM_TENANTS_MAX do
    local t = tenant_at(i)
    if not t then break end
    local at, any_expired = 1, false
    for _ = 1, CLAIM_TASKS_MAX do
      local id = queue_at(t, at, want)
      if not id then break end
      local r = load_task(id)
      local by = deadline(r)
      if by and NOW >= tonumber(by) then
        leave_queue(r)
        finish_expired(r)
        expired = expired + 1
        any_expired = true
      elseif tonumber(r.spec_version or FIRST_SPEC_VERSION) <= spec_version then
        start(r, c, terms, g, t)
        return claim_reply(r)
      else
        at = at + 1
      end
    end
    if expired >= EXPIRE_MAX then return { 'again' } end
    -- Expired tasks change the order of the tenants, so the search begins again.
    if any_expired then i = 0 else i = i + 1 end
  end
  if tenant_at(0) then return { 'other' } end
  call('DEL', K_wakeup)
  wakeups, recheck = 0, false
  return { 'none' }
end
