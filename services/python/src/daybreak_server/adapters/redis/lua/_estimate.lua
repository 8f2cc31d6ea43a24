-- Estimates the position and the waiting time of a task. The cost is O(log n) for the n tasks of the same tenant. A
-- script also reads at most OTHER_TENANTS_MAX other tenants, ESTIMATE_GROUPS_MAX groups and ETA_TASKS_MAX running
-- tasks, each once.
local others, other_by_name, accepting, soonest

resets[#resets + 1] = function() others, other_by_name, accepting, soonest = nil, nil, nil, nil end

local function load_others()
  flush_tenants()
  others, other_by_name = {}, {}
  local flat = call('ZRANGE', K_tenants, 0, OTHER_TENANTS_MAX - 1, 'WITHSCORES')
  if not flat[1] then return end
  local names = {}
  for i = 1, #flat, 2 do names[#names + 1] = flat[i] end
  local weights = weights_differ() and call('HMGET', K_weights, unpack(names)) or {}
  for i, name in ipairs(names) do
    local other = { name = name, share = tonumber(flat[2 * i]), weight = tonumber(weights[i] or '1') }
    others[i], other_by_name[name] = other, other
  end
end

-- Counts a task that joined the queue of `t` after `load_others`.
local function joined(t)
  local other = other_by_name[t.name]
  if other then
    if other.waiting then other.waiting = other.waiting + 1 end
  elseif #others < OTHER_TENANTS_MAX then
    other = { name = t.name, share = t.share, weight = t.weight, waiting = 1 }
    others[#others + 1], other_by_name[t.name] = other, other
  end
end

-- `ahead`: how many waiting tasks of the same tenant come before this one. `est`: the GPU-seconds that this task is
-- charged. The function assumes that each task of other tenants is charged the same. If more than OTHER_TENANTS_MAX
-- tenants wait, the result is a lower bound.
local function position_of(t, ahead, est)
  if not others then load_others() end
  local share = math.max(t.share, 0)
  if not waits(t) then share = math.max(share, meta('vtime')) end
  local cost = math.max(tonumber(est), 1e-9)
  local turn = share + ahead * cost / t.weight
  local position = 1 + ahead
  for _, other in ipairs(others) do
    if other.name ~= t.name then
      -- How many tasks of `other` would start at a smaller virtual time than `turn`. If the times are equal, the
      -- tenants' names decide, as in `before`.
      local ahead_of = (turn - other.share) * other.weight / cost
      local first = math.ceil(ahead_of)
      if first == ahead_of and other.name < t.name then first = first + 1 end
      if first > 0 then
        if not other.waiting then
          zflush(k_wait(other.name))
          other.waiting = call('ZCARD', k_wait(other.name))
        end
        position = position + math.min(other.waiting, first)
      end
    end
  end
  return position
end

-- Counts the groups that accept tasks, now or after their current one, as `GroupRecord.accepts_tasks` does in Python. A
-- group that still starts or loads, or that drains, is registered but accepts none.
local function load_groups()
  local names = call('ZRANGE', K_groups, 0, ESTIMATE_GROUPS_MAX - 1)
  local count, idle, draining = 0, 0, {}
  for _, name in ipairs(names) do
    local stored = call('HMGET', k_group(name), 'state', 'drain')
    if stored[2] then
      draining[name] = true
    elseif ACCEPTS_TASKS[stored[1]] then
      count = count + 1
      if stored[1] == 'idle' then idle = idle + 1 end
    end
  end
  if #names == ESTIMATE_GROUPS_MAX then  -- assume that the groups that were not read are like these
    local factor = call('ZCARD', K_groups) / #names
    count, idle = math.floor(count * factor + 0.5), math.floor(idle * factor + 0.5)
  end
  accepting = { count = count, idle = idle, draining = draining }
end

-- Groups estimate how many seconds their tasks still take (`eta_s`). Returns the smallest estimate of the groups that
-- accept tasks; nil if there is none.
local function soonest_end()
  if soonest == nil then
    soonest = false
    for _, id in ipairs(call('ZRANGE', K_leases, 0, ETA_TASKS_MAX - 1)) do
      local stored = call('HMGET', k_task(id), 'eta_s', 'group')
      local eta_s = not accepting.draining[stored[2]] and tonumber(stored[1] or nil)
      if eta_s and (not soonest or eta_s < soonest) then soonest = eta_s end
    end
  end
  return soonest or nil
end

-- The expected wait in seconds; nil if it depends on the mean duration of the pool's tasks, and no mean is known yet.
-- `due`: when a delayed task may start, in ms.
local function wait_s(position, due)
  if not accepting then load_groups() end
  local wait = 0
  if accepting.count == 0 then wait = meta('wake_ms') / 1000 end
  if position > accepting.idle and (position > 1 or accepting.count > 0) then
    local mean_s = number('mean_s')
    if not mean_s then return nil end
    local each = mean_s / math.max(1, accepting.count)
    if accepting.idle == 0 then
      wait = wait + (soonest_end() or each / 2) + (position - 1) * each
    else
      wait = wait + math.max(0, position - accepting.idle - 0.5) * each
    end
  end
  return math.max(wait, due and (due - NOW) / 1000 or 0)
end
