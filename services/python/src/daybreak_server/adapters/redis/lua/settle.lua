#!lua flags=allow-oom
-- include: clock common queue attempt claim
-- Ends an attempt and, if asked, claims the next task for the same group.
-- ARGV: id, token, outcome (finished failed released stopped), a, b, c, d, then the claim's own or nothing.
local id, token, outcome, a, b, c, d = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local HISTORY = 0.2  -- weight of the newest run in the history

local function blend(old, value)
  old = tonumber(old or nil)
  return exact(old and old + HISTORY * (value - old) or value)
end

-- What the estimates come from. A resumed run says nothing of how long a whole one takes.
local function learn(r, ran)
  if r.resumed_from_step or tonumber(r.cost) <= 0 then return end
  local old = redis.call('HMGET', K_meta, 'seconds_per_cost', 'mean_s')
  redis.call('HSET', K_meta, 'seconds_per_cost', blend(old[1], ran / tonumber(r.cost)), 'mean_s', blend(old[2], ran))
end

local function finished(r)
  learn(r, math.max(0, steady() - tonumber(r.claimed)) / 1000)
  detach(id, r, true, false, true)
  redis.call('HSET', k_out(id), 'artifacts', a)
  redis.call('HDEL', k_out(id), 'error')
  finish(id, r, 'succeeded', '{"artifacts":' .. b)
end

local function apply(r)
  if outcome == 'finished' then
    if r.cancel_at then strike(id, r, {}) else finished(r) end
  elseif outcome == 'failed' then
    strike(id, r, { code = a, message = b, permanent = c == '1', reason = d })
  elseif outcome == 'released' then
    release(id, r, a)
  else
    release(id, r, 'stopped')  -- cancelled or expired; handed back should it have been told neither
  end
end

local function next_claim(held_ok)
  local group = ARGV[8]
  if not group then return { 'none' } end
  local held = redis.call('HGET', k_group(group), 'task')
  if held and held_ok then
    -- The first answer to this settle was lost, and with it the next claim.
    local r = load_task(held)
    if r and r.state == 'running' and r.group == group then return answer(held, r) end
  end
  release_held(group, 'claim_lost')
  return claim_next({ group = group, ranks = ARGV[9], lease_ms = tonumber(ARGV[10]), nonce = ARGV[11],
    spec_version = tonumber(ARGV[12]), drain = ARGV[13] == '1' })
end

local r = load_task(id)
if not r then return { 'stale', '' } end
if r.token == token then
  apply(r)
  redis.call('HSET', k_task(id), 'done', token .. ' ' .. r.state)
  return { 'settled', r.state, next_claim(false) }
end
local settled, state = string.match(r.done or '', '^(%S+) (%S+)$')
if settled == token then return { 'settled', state, next_claim(true) } end
return { 'stale', r.state }
