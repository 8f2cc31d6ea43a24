-- Gives a group the next task in fair order. Used by `claim`, and by `settle` for the task after.

local function answer(r)
  local out = r.ckpt and call('HMGET', k_out(r.id), 'ckpt', 'ckpt_step') or {}
  return { 'task', r.id, r.token, r.attempt, r.tenant, call('GET', k_spec(r.id)) or '',
    out[1] or '', out[2] or '', control(r) }
end

local function start(r, c, g, t)
  leave_queue(r)
  if t.share > meta('vtime') then set_meta('vtime', t.share, exact(t.share)) end
  local cost = tonumber(r.est) / t.weight
  charge(t, cost)
  local again = r.attempt
  set(r, 'attempt', int(tonumber(again or '0') + 1))
  set(r, 'state', 'running')
  set(r, 'token', r.attempt .. '.' .. c.nonce)
  set(r, 'group', c.group)
  set(r, 'ranks', c.ranks)
  set(r, 'claimed', int(steady()))
  set(r, 'charge', exact(cost))
  if not r.started then
    set(r, 'started', NOW_TEXT)
    if r.run_within then set(r, 'run_by', int(NOW + tonumber(r.run_within))) end
  end
  local lease = int(meta('lease_clock') + c.lease_ms)
  zput(K_leases, r.id, lease)
  zput(K_live, r.id, int(RUNNING_BAND + NOW))
  if not g.state or g.state == 'lost' then  -- it claims before it registers, or was thought lost
    zput(K_groups, c.group, lease)
    zdrop(K_gone, c.group)
    g.ranks = c.ranks
  end
  group_takes(g, r.id)
  local data = started_data(c.group, c.ranks)
  if not again then return emit_told(r, 'sev', 'started', data .. '}') end
  if r.ckpt then data = data .. ',"resumed_from_step":' .. call('HGET', k_out(r.id), 'ckpt_step') end
  emit(r, 'started', data .. '}')
end

-- c: group, ranks, lease_ms, nonce, spec_version, drain, want (how many this script may claim). The first element
-- says what came of it: task …, drain, none (nothing waits), other (what waits is not for this group), again (call
-- once more).
local function claim_next(c)
  local g = group_of(c.group)
  look_round = true
  if c.drain or g.drain then return { 'drain' } end
  local expired, i = 0, 0
  while i < LOOK_TENANTS do
    local t = tenant_at(i)
    if not t then break end
    local at, gone = 1, false
    for _ = 1, LOOK_TASKS do
      local id = queue_at(t, at, c.want)
      if not id then break end
      local r = load_task(id)
      local by = deadline(r)
      if by and NOW >= tonumber(by) then
        leave_queue(r)
        finish_expired(r)
        expired = expired + 1
        gone = true
      elseif tonumber(r.spec_version or FIRST_SPEC_VERSION) <= c.spec_version then
        start(r, c, g, t)
        return answer(r)
      else
        at = at + 1
      end
    end
    if expired >= EXPIRE_MAX then return { 'again' } end
    if gone then i = 0 else i = i + 1 end
  end
  if tenant_at(0) then return { 'other' } end
  call('DEL', K_wakeup)
  bells, look_round = 0, false
  return { 'none' }
end

-- What the arguments begin with where something is claimed: lease in ms, nonce, spec version.
local TERMS = 3

local function terms(ARGV, want)
  return { lease_ms = tonumber(ARGV[1]), nonce = ARGV[2], spec_version = tonumber(ARGV[3]), want = want }
end

-- A claim under these terms; its own arguments, from `at` on: group, ranks, whether it drains, and the tasks that it
-- says it has, with a space between.
local CLAIMANT = 4

local function claimant(common, ARGV, at)
  return { group = ARGV[at], ranks = ARGV[at + 1], drain = ARGV[at + 2] == '1', kept = ARGV[at + 3],
    lease_ms = common.lease_ms, nonce = common.nonce, spec_version = common.spec_version, want = common.want }
end
