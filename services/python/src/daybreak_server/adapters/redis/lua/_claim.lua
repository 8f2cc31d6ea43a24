-- include: clock common queue attempt
-- Gives a group the next task in fair order. Used by `claim`, and by `settle` for the task after.
local LOOK_TENANTS, LOOK_TASKS, EXPIRE_MAX = 8, 8, 50

local function answer(id, r)
  local out = redis.call('HMGET', k_out(id), 'ckpt', 'ckpt_step')
  return { 'task', id, r.token, r.attempt, r.tenant, redis.call('GET', k_spec(id)) or '',
    out[1] or '', out[2] or '', control(r) }
end

local function start(id, r, c)
  leave_queue(id, r)
  local vt = tonumber(redis.call('HGET', K_shares, r.tenant) or '0')
  if vt > meta('vtime') then redis.call('HSET', K_meta, 'vtime', exact(vt)) end
  local cost = tonumber(r.est) / weight_of(r.tenant)
  charge(r.tenant, cost)
  r.attempt = int(tonumber(r.attempt or '0') + 1)
  r.token = r.attempt .. '.' .. c.nonce
  r.group = c.group
  local fields = { 'state', 'running', 'attempt', r.attempt, 'token', r.token, 'group', c.group,
    'ranks', c.ranks, 'claimed', int(steady()), 'charge', exact(cost) }
  if not r.started then
    r.started = int(NOW)
    fields[#fields + 1], fields[#fields + 2] = 'started', r.started
    if r.run_within then
      r.run_by = int(NOW + tonumber(r.run_within))
      fields[#fields + 1], fields[#fields + 2] = 'run_by', r.run_by
    end
  end
  redis.call('HSET', k_task(id), unpack(fields))
  redis.call('ZADD', K_leases, int(meta('lease_clock') + c.lease_ms), id)
  redis.call('ZADD', K_live, int(RUNNING_BAND + NOW), id)
  if not redis.call('ZSCORE', K_groups, c.group) then  -- it claims before it registers, or was thought lost
    redis.call('ZADD', K_groups, int(meta('lease_clock') + c.lease_ms), c.group)
    redis.call('ZREM', K_gone, c.group)
    redis.call('HSET', k_group(c.group), 'ranks', c.ranks)
  end
  redis.call('HSET', k_group(c.group), 'task', id, 'state', 'busy', 'since', int(NOW))
  open_stream(id, r)
  local data = '{"group":' .. cjson.encode(c.group) .. ',"ranks":' .. c.ranks
  local step = redis.call('HGET', k_out(id), 'ckpt_step')
  if step then data = data .. ',"resumed_from_step":' .. step end
  emit(id, 'started', r.attempt, data .. '}')
end

-- Who refuses may have taken a token that was meant for somebody else.
local function ring_if_waiting()
  if redis.call('EXISTS', K_tenants) == 1 and redis.call('EXISTS', K_bell) == 0 then ring() end
end

-- c: group, ranks, lease_ms, nonce, spec_version, drain. The first element says what came of it:
-- task …, drain, none (nothing waits), other (what waits is not for this group), again (call once more).
local function claim_next(c)
  if c.drain or redis.call('HGET', k_group(c.group), 'drain') then
    ring_if_waiting()
    return { 'drain' }
  end
  local expired = 0
  local t = 0
  while t < LOOK_TENANTS do
    local tenant = redis.call('ZRANGE', K_tenants, t, t)[1]
    if not tenant then break end
    local moved = false
    for _, id in ipairs(redis.call('ZRANGE', k_wait(tenant), 0, LOOK_TASKS - 1)) do
      local r = load_task(id)
      local by = r.started and r.run_by or (not r.started and r.start_by)
      if by and NOW >= tonumber(by) then
        leave_queue(id, r)
        finish_expired(id, r)
        expired = expired + 1
        moved = true
      elseif tonumber(r.spec_version or '1') <= c.spec_version then
        start(id, r, c)
        ring_if_waiting()
        return answer(id, r)
      end
    end
    if expired >= EXPIRE_MAX then return { 'again' } end
    if moved then t = 0 else t = t + 1 end
  end
  if redis.call('EXISTS', K_tenants) == 1 then
    ring_if_waiting()
    return { 'other' }
  end
  redis.call('DEL', K_bell)
  return { 'none' }
end
