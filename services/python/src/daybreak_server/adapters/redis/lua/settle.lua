#!lua flags=allow-oom
-- Ends attempts and, for each if asked, claims the next task for the same group; one after the other.
-- ARGV: the terms of claims, then for each id, token, outcome (finished failed released stopped), a, b, c, d and the
-- claimant, with '' for the group where none is wanted. Answers one item for each.
local ARGS = 7 + CLAIMANT

local function learn(name, value)
  local old = number(name)
  local new = old and old + RUN_HISTORY_WEIGHT * (value - old) or value
  set_meta(name, new, exact(new))
end

local function finished(r, stored, shown)
  -- What the estimates come from. A resumed run says nothing of how long a whole one takes.
  if not r.resumed_from_step and tonumber(r.cost) > 0 then
    local ran = math.max(0, steady() - tonumber(r.claimed)) / 1000
    learn('seconds_per_cost', ran / tonumber(r.cost))
    learn('mean_s', ran)
  end
  detach(r, true, false, true)
  if r.strikes then call('HDEL', k_out(r.id), 'error') end
  finish(r, 'succeeded')
  if stored == '[]' then return emit_told(r, 'fev', 'succeeded', succeeded_data(r, '[]')) end
  call('HSET', k_out(r.id), 'artifacts', stored)
  emit(r, 'succeeded', succeeded_data(r, shown))
end

local function apply(r, outcome, a, b, c, d)
  if outcome == 'finished' then
    if r.cancel_at then strike(r, {}) else finished(r, a, b) end
  elseif outcome == 'failed' then
    strike(r, { code = a, message = b, permanent = c == '1', reason = d })
  elseif outcome == 'released' then
    release(r, a)
  else
    release(r, 'stopped')  -- cancelled or expired; handed back should it have been told neither
  end
end

local function next_claim(c, held_ok)
  if c.group == '' then return { 'none' } end
  local held = held_ok and forgotten_by(group_of(c.group), c.kept) or {}
  for _, id in ipairs(held) do
    -- The first answer to this settle was lost, and with it the next claim.
    local r = load_task(id)
    if is_held(r, c.group) then return answer(r) end
  end
  release_held(c.group, 'claim_lost', c.kept)
  return claim_next(c)
end

local function settle(ARGV, at, common)
  local token = ARGV[at + 1]
  local r = load_task(ARGV[at])
  if not r then return { 'stale', '' } end
  if r.token == token then
    apply(r, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
    set(r, 'done', token .. ' ' .. r.state)
    return { 'settled', r.state, next_claim(claimant(common, ARGV, at + 7), false) }
  end
  local settled, state = string.match(r.done or '', '^(%S+) (%S+)$')
  if settled == token then return { 'settled', state, next_claim(claimant(common, ARGV, at + 7), true) } end
  return { 'stale', r.state }
end

local function run(ARGV)
  local found, count = {}, (#ARGV - TERMS) / ARGS
  local common = terms(ARGV, count)
  for i = 1, count do found[i] = settle(ARGV, TERMS + ARGS * (i - 1) + 1, common) end
  flush()
  return found
end
