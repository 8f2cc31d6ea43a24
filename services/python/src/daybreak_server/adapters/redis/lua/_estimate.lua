-- include: clock common queue
-- Where a waiting task stands and how long it may wait: O(log n) for its own tenant's queue plus a bounded
-- number of other tenants.
local CROWD_MAX, RUNNING_MAX = 32, 16
local crowd

local function load_crowd()
  local m = redis.call('HMGET', K_meta, 'vtime', 'mean_s', 'wake_ms')
  crowd = { vtime = tonumber(m[1] or '0'), mean_s = tonumber(m[2] or nil),
    wake_s = tonumber(m[3] or '0') / 1000, running = redis.call('ZCARD', K_leases),
    groups = redis.call('ZCARD', K_groups) }
  local flat = redis.call('ZRANGE', K_tenants, 0, CROWD_MAX - 1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    crowd[#crowd + 1] = { name = flat[i], vt = tonumber(flat[i + 1]), weight = weight_of(flat[i]),
      waiting = redis.call('ZCARD', k_wait(flat[i])) }
  end
end

-- A lower bound where more than CROWD_MAX tenants wait. Assumes that the others' tasks cost as much as this one.
local function position(r)
  if not crowd then load_crowd() end
  local ahead = redis.call('ZCOUNT', k_wait(r.tenant), '-inf', '(' .. r.order)
  local own = math.max(tonumber(redis.call('HGET', K_shares, r.tenant) or '0'), 0)
  if not redis.call('ZSCORE', K_tenants, r.tenant) then own = math.max(own, crowd.vtime) end
  local cost = math.max(tonumber(r.est), 1e-9)
  local turn = own + ahead * cost / weight_of(r.tenant)
  local place = 1 + ahead
  for _, other in ipairs(crowd) do
    if other.name ~= r.tenant then
      local before = (turn - other.vt) * other.weight / cost
      local first = math.ceil(before)
      if first == before and other.name < r.tenant then first = first + 1 end
      place = place + math.max(0, math.min(other.waiting, first))
    end
  end
  return place
end

-- Seconds until the first of the running tasks ends, by what their groups say of them; nil where none says.
local function soonest_end()
  local least
  for _, id in ipairs(redis.call('ZRANGE', K_leases, 0, RUNNING_MAX - 1)) do
    local left = tonumber(redis.call('HGET', k_task(id), 'eta_s') or nil)
    if left and (not least or left < least) then least = left end
  end
  return least
end

-- Seconds, or nil while there is no history. `due`: when a delayed task may begin, in ms.
local function wait_s(place, due)
  if not crowd then load_crowd() end
  local idle = math.max(0, crowd.groups - crowd.running)
  local wait = 0
  if crowd.groups == 0 then wait = crowd.wake_s end
  if place > idle and (place > 1 or crowd.running > 0) then
    if not crowd.mean_s then return nil end
    local each = crowd.mean_s / math.max(1, crowd.groups)
    if idle == 0 then
      wait = wait + (soonest_end() or each / 2) + (place - 1) * each
    else
      wait = wait + math.max(0, place - idle - 0.5) * each
    end
  end
  return math.max(wait, due and (due - NOW) / 1000 or 0)
end
