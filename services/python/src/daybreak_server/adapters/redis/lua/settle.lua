#!lua flags=allow-oom
-- Ends attempts, one after the other. After each, the script claims the group's next task if the caller asks for it.
-- ARGV: a Terms of arguments.py, then for each attempt a Settlement and a Claimant, whose group is '' if nothing is to
-- be claimed.
-- Answers one item for each attempt: {'settled', state, reply to the claim}, or {'repeated', …} if an earlier call has
-- ended it, or {'stale', state}.

local function learn(name, value)
  local old = number(name)
  local new = old and old + RUN_HISTORY_WEIGHT * (value - old) or value
  set_meta(name, new, exact(new))
end

local function finish_succeeded(r, artifacts, described)
  -- The pool's history feeds its estimates. A resumed attempt does not show how long a whole run takes.
  local ran_ms = math.max(0, steady() - tonumber(r.claimed))
  observe(histograms.runs, ran_ms)
  if not r.resumed_from_step and tonumber(r.cost) > 0 then
    local ran = ran_ms / 1000
    learn('seconds_per_cost', ran / tonumber(r.cost))
    learn('mean_s', ran)
  end
  detach(r, true, false, true)
  if r.strikes then call('HDEL', k_out(r.id), 'error') end
  finish(r, 'succeeded')
  if artifacts == '[]' then return emit_in_record(r, 'final_event_id', 'succeeded', succeeded_data(r, '[]')) end
  call('HSET', k_out(r.id), 'artifacts', artifacts)
  emit(r, 'succeeded', succeeded_data(r, described))
end

local function apply(r, s)
  if s.outcome == 'finished' then
    if r.cancel_at then end_failed_attempt(r, {}) else finish_succeeded(r, s.artifacts, s.described) end
  elseif s.outcome == 'failed' then
    end_failed_attempt(r, { code = s.code, message = s.message, permanent = s.permanent == '1', reason = s.reason })
  elseif s.outcome == 'released' then
    release(r, s.reason)
  else
    release(r, 'stopped')  -- ends the task if it is cancelled or overdue, and requeues it if not
  end
end

-- `repeated`: this settle was applied before, but its answer was lost. If the lost answer had a claim, the group holds a
-- task that it does not know of, and the answer to this call has the same claim.
local function next_claim(c, terms, want, repeated)
  if c.group == '' then return { 'none' } end
  for _, id in ipairs(repeated and unknown_tasks(group_of(c.group), c.known) or {}) do
    local r = load_task(id)
    if is_held(r, c.group) then return claim_reply(r) end
  end
  release_unknown(c.group, 'claim_lost', c.known)
  return claim_next(c, terms, want)
end

local function settle(s, c, terms, want)
  local r = load_task(s.task)
  if not r then return { 'stale', '' } end
  if r.token == s.token then
    apply(r, s)
    set(r, 'done', s.token .. ' ' .. r.state)
    return { 'settled', r.state, next_claim(c, terms, want, false) }
  end
  local settled, state = string.match(r.done or '', '^(%S+) (%S+)$')
  if settled == s.token then return { 'repeated', state, next_claim(c, terms, want, true) } end
  return { 'stale', r.state }
end

local function run(ARGV)
  local terms, step, replies = read.terms(ARGV, 1), width.settlement + width.claimant, {}
  local want = (#ARGV - width.terms) / step
  for at = width.terms + 1, #ARGV, step do
    local c = read.claimant(ARGV, at + width.settlement)
    replies[#replies + 1] = settle(read.settlement(ARGV, at), c, terms, want)
  end
  flush()
  return replies
end
