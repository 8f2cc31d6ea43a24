-- Where a waiting task stands and how long it may wait: O(log n) for its own tenant's queue plus a bounded
-- number of other tenants. What it reads of the others it reads once in a script.
local crowd, crowd_by, running_tasks, ready_groups, soonest

resets[#resets + 1] = function() crowd, crowd_by, soonest = nil, nil, nil end

local function load_crowd()
  flush_tenants()
  crowd, crowd_by = {}, {}
  running_tasks, ready_groups = call('ZCARD', K_leases), call('ZCARD', K_groups)
  local flat = call('ZRANGE', K_tenants, 0, CROWD_MAX - 1, 'WITHSCORES')
  if not flat[1] then return end
  local names = {}
  for i = 1, #flat, 2 do names[#names + 1] = flat[i] end
  local weights = call('HMGET', K_weights, unpack(names))
  for i, name in ipairs(names) do
    local other = { name = name, vt = tonumber(flat[2 * i]), weight = tonumber(weights[i] or '1') }
    crowd[i], crowd_by[name] = other, other
  end
end

-- A task has joined the queue of `t`, after `load_crowd`.
local function joined(t)
  local other = crowd_by[t.name]
  if other then
    if other.waiting then other.waiting = other.waiting + 1 end
  elseif #crowd < CROWD_MAX then
    other = { name = t.name, vt = t.share, weight = t.weight, waiting = 1 }
    crowd[#crowd + 1], crowd_by[t.name] = other, other
  end
end

-- `ahead`: how many of the tenant's own come first; `est`: what the task is charged. A lower bound where more than
-- CROWD_MAX tenants wait. Assumes that the others' tasks cost as much as this one.
local function place_of(t, ahead, est)
  if not crowd then load_crowd() end
  local own = math.max(t.share, 0)
  if not waits(t) then own = math.max(own, meta('vtime')) end
  local cost = math.max(tonumber(est), 1e-9)
  local turn = own + ahead * cost / t.weight
  local place = 1 + ahead
  for _, other in ipairs(crowd) do
    if other.name ~= t.name then
      local ahead_of = (turn - other.vt) * other.weight / cost
      local first = math.ceil(ahead_of)
      if first == ahead_of and other.name < t.name then first = first + 1 end
      if first > 0 then
        if not other.waiting then
          zflush(k_wait(other.name))
          other.waiting = call('ZCARD', k_wait(other.name))
        end
        place = place + math.min(other.waiting, first)
      end
    end
  end
  return place
end

-- Seconds until the first of the running tasks ends, by what their groups say of them; nil where none says.
local function soonest_end()
  if soonest == nil then
    soonest = false
    for _, id in ipairs(call('ZRANGE', K_leases, 0, RUNNING_MAX - 1)) do
      local left = tonumber(call('HGET', k_task(id), 'eta_s') or nil)
      if left and (not soonest or left < soonest) then soonest = left end
    end
  end
  return soonest or nil
end

-- Seconds, or nil while there is no history. `due`: when a delayed task may begin, in ms.
local function wait_s(place, due)
  if not crowd then load_crowd() end
  local idle = math.max(0, ready_groups - running_tasks)
  local wait = 0
  if ready_groups == 0 then wait = meta('wake_ms') / 1000 end
  if place > idle and (place > 1 or running_tasks > 0) then
    local mean_s = number('mean_s')
    if not mean_s then return nil end
    local each = mean_s / math.max(1, ready_groups)
    if idle == 0 then
      wait = wait + (soonest_end() or each / 2) + (place - 1) * each
    else
      wait = wait + math.max(0, place - idle - 0.5) * each
    end
  end
  return math.max(wait, due and (due - NOW) / 1000 or 0)
end
