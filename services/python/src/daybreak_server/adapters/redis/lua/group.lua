#!lua flags=allow-oom
-- Does one action. On a group: `register` (or refresh), `deregister`, `deregister_dead` (counts it as lost), `drain`,
-- `undrain`. On a host: `cordon`, `uncordon`. On the pool: `report_failure` stores why a rank ended, and
-- `publish_report` stores the operator's report.
-- ARGV: the action, then its arguments as arguments.py names them. For an action on a group, answers 1 if the group is
-- marked to drain and 0 if not; `drain` and `undrain` answer -1 if there is no such group. Other actions answer 0.

local function on_cordoned_host(hosts)
  if call('EXISTS', K_cordoned) == 0 then return false end
  for _, host in ipairs(cjson.decode(hosts)) do
    local ends = call('ZSCORE', K_cordoned, host)
    if ends and tonumber(ends) > meta('lease_clock') then return true end
  end
end

-- The seconds of a wake's phases, as JSON without the closing brace: those that the group measured, and those that the
-- operator measured before the group existed.
local function wake_stamps(own)
  local phases, stamps = cjson.decode(own), {}
  local waking = call('EXISTS', K_operator_report) == 1 and call('HGET', K_meta, 'waking')
  for phase, s in pairs(waking and cjson.decode(waking) or {}) do phases[phase] = s end
  for phase, s in pairs(phases) do stamps[#stamps + 1] = '"' .. phase .. '_s":' .. format('%.3f', s) end
  table.sort(stamps)
  return '{' .. table.concat(stamps, ',')
end

-- `worked_on`: the set of the sessions that a dead group worked on last; nil if it is unknown.
local function remove(group, worked_on)
  release_unknown(group, 'left')
  S.release_group(group, 'left', worked_on)
  flush()
  call('DEL', k_group(group))
  call('ZREM', K_groups, group)
  call('ZREM', K_gone, group)
  return 0
end

local function register(ARGV, at)
  local a, fields = read.registration(ARGV, at), {}
  local key = k_group(a.group)
  -- A group that is starting holds nothing, so whatever it held before is released.
  if a.starting == '1' then
    release_unknown(a.group, 'restarted')
    S.release_group(a.group, 'restarted')
  end
  flush()
  local before = call('HMGET', key, 'state', 'phase', 'tasks', 'ready_at')
  for i = at + width.registration, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
  if before[3] and fields.state == 'idle' then fields.state = 'busy' end
  if before[1] == fields.state and before[2] == fields.phase then
    fields.since = nil
  else
    fields.since = fields.since or NOW_TEXT
  end
  if a.draining == '1' or fields.hosts and on_cordoned_host(fields.hosts) then fields.drain = '1' end
  if fields.state == 'idle' and a.wake_ms ~= '' and not before[4] then
    fields.ready_at, fields.stamps = NOW_TEXT, wake_stamps(a.wake)
  end
  hflush(key, fields)
  call('ZADD', K_groups, int(meta('lease_clock') + tonumber(a.ttl_ms)), a.group)
  call('ZREM', K_gone, a.group)
  if fields.state == 'idle' and not ACCEPTS_TASKS[before[1]] then
    call('DEL', K_failure)
    -- An operator measures the whole wake from zero and reports it; without an operator, the group's own wake counts.
    if a.wake_ms ~= '' and call('EXISTS', K_operator_report) == 0 then
      call('HSET', K_meta, 'wake_ms', a.wake_ms, 'wake', a.wake)
      call('HINCRBY', K_totals, 'wakes', 1)
    end
  end
  return call('HEXISTS', key, 'drain')
end

local actions = {
  register = register,
  drain = function(ARGV, at)
    local key = k_group(read.group_name(ARGV, at).group)
    if call('EXISTS', key) == 0 then return -1 end
    call('HSET', key, 'drain', '1')
    return 1
  end,
  undrain = function(ARGV, at)
    local key = k_group(read.group_name(ARGV, at).group)
    if call('EXISTS', key) == 0 then return -1 end
    call('HDEL', key, 'drain')
    return 0
  end,
  deregister = function(ARGV, at)
    return remove(read.group_name(ARGV, at).group)
  end,
  deregister_dead = function(ARGV, at)
    local a, worked_on = read.dead_group(ARGV, at), nil
    if a.known == '1' then
      worked_on = {}
      for i = at + width.dead_group, #ARGV do worked_on[ARGV[i]] = true end
    end
    -- The group's leader and its watchdog may both report the death, and a tick may have found and counted it before.
    local state = call('HGET', k_group(a.group), 'state')
    if state and state ~= 'lost' then add_total('groups_lost', 1) end
    return remove(a.group, worked_on)
  end,
  cordon = function(ARGV, at)
    local ends = int(meta('lease_clock') + tonumber(read.cordon(ARGV, at).ttl_ms))
    for i = at + width.cordon, #ARGV do call('ZADD', K_cordoned, ends, ARGV[i]) end
    return 0
  end,
  uncordon = function(ARGV, at)
    call('ZREM', K_cordoned, unpack(ARGV, at))
    return 0
  end,
  report_failure = function(ARGV, at)
    local a = read.rank_failure(ARGV, at)
    -- The ranks of a group end one after the other, and only the first one knows the cause.
    if call('PTTL', K_failure) < tonumber(a.ttl_ms) - FAILURE_FIRST_MS then
      call('SET', K_failure, a.cause, 'PX', a.ttl_ms)
    end
    return 0
  end,
  publish_report = function(ARGV, at)
    local a = read.operator_report(ARGV, at)
    call('SET', K_operator_report, a.report, 'PX', a.ttl_ms)
    if a.wake_ms ~= '' and call('HGET', K_meta, 'wake') ~= a.wake then  -- each report repeats the last wake
      call('HSET', K_meta, 'wake_ms', a.wake_ms, 'wake', a.wake)
      call('HINCRBY', K_totals, 'wakes', 1)
    end
    if a.waking ~= '' then call('HSET', K_meta, 'waking', a.waking) else call('HDEL', K_meta, 'waking') end
    if a.target_load ~= '' then
      call('HSET', K_meta, 'target_load', a.target_load)
    else
      call('HDEL', K_meta, 'target_load')
    end
    return 0
  end,
}

local function run(ARGV) return actions[read.group_action(ARGV, 1).action](ARGV, width.group_action + 1) end
