-- include: clock common queue
-- The running side: what an attempt costs, and every way in which it ends.
local HAND_BACKS_MAX = 50
local BACKOFF_BASE_MS, BACKOFF_MAX_MS = 1000, 60000
local ZOMBIE_MS = 30000        -- a lost attempt may still be writing files for so long
local LEDGER_S = 400 * 86400
local DAY_MS = 86400000
local LEASE_STEP_MS = 2000     -- the lease clock moves by so much at most, however long nothing ticked

-- The lease clock, exact between its ticks: what attempts are billed by. A step of the wall clock is not charged
-- (but for LEASE_STEP_MS of it), nor is an outage of ours.
local function steady()
  local m = redis.call('HMGET', K_meta, 'lease_clock', 'ticked_ms')
  local since = m[2] and NOW - tonumber(m[2]) or 0
  return tonumber(m[1] or '0') + math.max(0, math.min(since, LEASE_STEP_MS))
end

local function usage(r)
  return '"usage":{"gpu_seconds":' .. seconds(tonumber(r.used_ms or '0'))
    .. ',"wasted_gpu_seconds":' .. seconds(tonumber(r.wasted_ms or '0')) .. '}'
end

local function discard(prefix, at) redis.call('ZADD', K_garbage, int(at), prefix) end

-- Bills the attempt: corrects the tenant's estimate to what was used. What a later attempt does not profit from
-- is wasted; all of it is used when it ended the task, or up to the checkpoint that it left.
local function bill(id, r, ended)
  local ranks, claimed = tonumber(r.ranks), tonumber(r.claimed)
  local all = ranks * math.max(0, steady() - claimed)
  local used = all
  if not ended then used = r.ckpt_at and ranks * math.max(0, tonumber(r.ckpt_at) - claimed) or 0 end
  local wasted = all - used
  charge(r.tenant, all / 1000 / weight_of(r.tenant) - tonumber(r.charge))
  r.used_ms = int(tonumber(r.used_ms or '0') + used)
  r.wasted_ms = int(tonumber(r.wasted_ms or '0') + wasted)
  redis.call('HSET', k_task(id), 'used_ms', r.used_ms, 'wasted_ms', r.wasted_ms)
  redis.call('HINCRBY', K_meta, 'used_ms', int(used))
  redis.call('HINCRBY', K_meta, 'wasted_ms', int(wasted))
  local ledger = k_ledger(int(math.floor(NOW / DAY_MS)))
  redis.call('HINCRBY', ledger, r.tenant .. ':used_ms', int(used))
  if redis.call('HINCRBY', ledger, r.tenant .. ':wasted_ms', int(wasted)) == wasted then
    redis.call('EXPIRE', ledger, LEDGER_S)  -- at a tenant's first of the day at least
  end
end

-- Takes the attempt off the task. `zombie`: its worker did not say so itself, and may still be writing.
local function detach(id, r, ended, zombie, published)
  bill(id, r, ended)
  redis.call('ZREM', K_leases, id)
  if redis.call('HGET', k_group(r.group), 'task') == id then
    redis.call('HDEL', k_group(r.group), 'task')
    if redis.call('HGET', k_group(r.group), 'state') == 'busy' then
      redis.call('HSET', k_group(r.group), 'state', 'idle', 'since', int(NOW))
    end
  end
  if not published then discard(id .. '/' .. r.token .. '/', zombie and NOW + ZOMBIE_MS or NOW) end
  redis.call('HDEL', k_task(id), 'token', 'group', 'ranks', 'claimed', 'charge', 'ckpt_at', 'told', 'phase', 'eta_s')
  if not ended then redis.call('HDEL', k_task(id), 'fraction', 'step', 'steps', 'resumed_from_step') end
end

-- The one way to a terminal state. `data` is the event's JSON without its closing brace.
local function finish(id, r, state, data)
  local ends = NOW + tonumber(r.retain)
  redis.call('HSET', k_task(id), 'state', state, 'finished', int(NOW), 'expires', int(ends))
  r.state = state
  redis.call('ZREM', K_live, id)
  redis.call('ZREM', K_timers, id)
  redis.call('ZADD', K_sweep, int(ends), id)
  if redis.call('HDEL', k_out(id), 'ckpt', 'ckpt_step') > 0 then discard(id .. '/checkpoints/', NOW) end
  if state == 'failed' then redis.call('ZADD', K_dead, int(NOW), id) end
  redis.call('HINCRBY', K_meta, 'ended:' .. state, 1)
  open_stream(id, r)
  emit(id, state, r.attempt or '0', data .. ',' .. usage(r) .. '}')
end

local function finish_cancelled(id, r)
  finish(id, r, 'cancelled', '{"reason":' .. cjson.encode(r.cancel_reason or 'requested'))
end

local function finish_expired(id, r)
  finish(id, r, 'expired', r.started and '{"reason":"run_within"' or '{"reason":"start_within"')
end

local function overdue(r) return r.run_by and NOW >= tonumber(r.run_by) end

local function backoff_ms(strikes, token)
  local unit = tonumber(string.sub(redis.sha1hex(token), 1, 8), 16) / 4294967296
  local full = math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ^ (strikes - 1))
  return math.floor(full * (0.5 + 0.5 * unit))
end

-- An attempt that failed. Precedence: cancel, deadline (unless the error is permanent), strike.
local function strike(id, r, e)
  if r.cancel_at then
    detach(id, r, true, e.zombie)
    return finish_cancelled(id, r)
  end
  if overdue(r) and not e.permanent then
    detach(id, r, true, e.zombie)
    return finish_expired(id, r)
  end
  local strikes = tonumber(r.strikes or '0') + 1
  local final = e.permanent or strikes >= tonumber(r.max_strikes or '3')
  local token = r.token
  detach(id, r, final, e.zombie)
  local err = '{"code":' .. cjson.encode(e.code) .. ',"message":' .. cjson.encode(e.message)
    .. ',"attempt":' .. r.attempt .. '}'
  redis.call('HSET', k_out(id), 'error', err)
  redis.call('HSET', k_task(id), 'strikes', int(strikes))
  if final then return finish(id, r, 'failed', '{"error":' .. err) end
  local wait = backoff_ms(strikes, token)
  delay(id, r, NOW + wait)
  arm(id, r)
  emit(id, 'retrying', r.attempt, '{"reason":' .. cjson.encode(e.reason) .. ',"strikes":' .. int(strikes)
    .. ',"delay_s":' .. seconds(wait) .. ',"message":' .. cjson.encode(e.message) .. '}')
end

-- An attempt that its group gives back: its old place, no strike, unless it was given back too often.
local function release(id, r, why, zombie)
  if r.cancel_at or overdue(r) then return strike(id, r, { zombie = zombie }) end
  local backs = tonumber(r.hand_backs or '0') + 1
  if backs > HAND_BACKS_MAX then
    return strike(id, r, { reason = 'handed_back', code = 'handed_back', zombie = zombie,
      message = 'handed back more than ' .. HAND_BACKS_MAX .. ' times; last: ' .. why })
  end
  detach(id, r, false, zombie)
  redis.call('HSET', k_task(id), 'hand_backs', int(backs))
  emit(id, 'retrying', r.attempt, '{"reason":"handed_back","strikes":' .. (r.strikes or '0')
    .. ',"delay_s":0,"message":' .. cjson.encode(why) .. '}')
  enqueue(id, r)
  arm(id, r)
end

-- What a group still holds although it says that it has nothing (a claim whose answer was lost, a restart).
local function release_held(group, why)
  local held = redis.call('HGET', k_group(group), 'task')
  if not held then return end
  local r = load_task(held)
  if r and r.state == 'running' and r.group == group then release(held, r, why, true) end
  redis.call('HDEL', k_group(group), 'task')
end

-- What a worker is told with every answer.
local function control(r)
  local bits = 0
  if r.cancel_at then bits = bits + 1 end
  if overdue(r) then bits = bits + 2 end
  if redis.call('HGET', k_group(r.group), 'drain') then bits = bits + 4 end
  return bits
end

local STALE = 8
