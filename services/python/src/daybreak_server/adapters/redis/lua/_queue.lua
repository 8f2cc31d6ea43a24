-- Waiting tasks: the fair queue, delays, deadlines, and the wake-up list of idle leaders.
--
-- How it works: each tenant has a virtual time, the GPU-seconds that it has used, divided by its weight. `K_tenants`
-- orders the tenants that have waiting tasks by their virtual time, and the first of them is next. A claim charges the
-- tenant the estimated cost of the task, and the end of the attempt replaces the estimate by the actual cost. A tenant
-- that returns after a pause starts at least at the pool's virtual time, so the pause gives it no advantage. Each
-- tenant has a sorted set of its waiting tasks (`k_wait`), in the order of their priorities and then of their
-- submission. So the next task is found with a few reads, however many tasks wait.
--
-- Delayed tasks wait in `K_delayed`, or in `K_due_soon` if they are due within the duration of a wake, until `tick`
-- moves them to the queue. `K_timers` orders tasks by the deadline that applies. `K_live` has all tasks that the pool
-- needs groups for; KEDA scales by their number. An idle leader blocks on the list `K_wakeup`, to which each script
-- that makes a task claimable pushes an entry.

-- `tenants`: the tenants, by name. The fields of a tenant are:
-- `share`: the virtual time. `weight`: the weight. `is_new`: the pool does not know the tenant yet.
-- `waits`: whether the tenant has waiting tasks, or nil while this script has not read that. `list`: the first tasks
-- of the tenant's queue, or nil while this script has not read them. `whole`: `list` is the whole queue.
-- The list `moved`: the tenants whose new virtual time or empty queue this script has not written to Redis yet.
local tenants, moved
local head, second_share, second_name  -- the next tenant; `share` and name of the tenant after it
local wakeups, recheck  -- how many wake-ups to push; whether to add one if tasks wait and the list is empty

resets[#resets + 1] = function()
  tenants, moved = {}, {}
  head, second_share, second_name, wakeups, recheck = nil, nil, nil, 0, false
end

-- Whether any tenant may have a weight other than 1. If not, scripts read no weights. `tick` sets `equal_weights`.
-- Before the first tick `equal_weights` is missing, so scripts read the weights that an earlier version stored.
local function weights_differ() return number('equal_weights') ~= 1 end

local function tenant(name)
  local t = tenants[name]
  if not t then
    local share = call('HGET', K_shares, name)
    t = { name = name, share = tonumber(share or '0'), is_new = not share,
      weight = weights_differ() and tonumber(call('HGET', K_weights, name) or '1') or 1 }
    tenants[name] = t
  end
  return t
end

local function move(t)
  if not t.moved then
    t.moved = true
    moved[#moved + 1] = t
  end
  if t ~= head then head = nil end
end

local function charge(t, amount)
  t.share = t.share + amount
  move(t)
end

local function waits(t)
  if t.waits == nil then t.waits = call('EXISTS', k_wait(t.name)) == 1 end
  return t.waits
end

-- How long the oldest waiting task of each priority has waited, in ms; -1 if none waits. In `live`, each priority has a
-- band of scores for its waiting tasks. Two other kinds of tasks have scores below all bands: tasks in `due_soon`, and
-- tasks that an earlier version queued. These tasks count as waiting from the time at which they are due.
local function oldest_waits()
  local waits = {}
  for priority = 0, PRIORITIES - 1 do
    local from = (priority + 1) * PRIORITY_BAND
    local first = call('ZRANGE', K_live, exact(from), '(' .. exact(from + PRIORITY_BAND), 'BYSCORE', 'LIMIT', 0, 1,
      'WITHSCORES')
    waits[priority + 1] = first[1] and math.max(0, NOW - (tonumber(first[2]) - from)) or -1
  end
  local due = call('ZRANGE', K_live, '-inf', NOW_TEXT, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  local order = due[1] and call('HGET', k_task(due[1]), 'order')
  if order then
    local at = math.floor(order / PRIORITY_BAND) + 1
    waits[at] = math.max(waits[at], NOW - tonumber(due[2]))
  end
  return waits
end

local function enqueue(r)
  local t, key = tenant(r.tenant), k_wait(r.tenant)
  if t.list then
    zflush(key)
    t.list = nil
  end
  if not waits(t) then
    -- A tenant that was idle starts at least at the pool's virtual time. With a lower one, it would starve others.
    t.share = math.max(t.share, meta('vtime'))
    t.waits = true
    move(t)
  end
  zput(key, r.id, r.order)
  zput(K_live, r.id, int((math.floor(r.order / PRIORITY_BAND) + 1) * PRIORITY_BAND + NOW))
  set(r, 'state', 'queued')
  -- Store when the task began to wait, unless this is the time at which the task was accepted.
  if r.created ~= NOW_TEXT then set(r, 'queued', NOW_TEXT) end
  wakeups = wakeups + 1
end

local function delay(r, due)
  if due - meta('wake_ms') <= NOW then
    zput(K_due_soon, r.id, int(due))
    zput(K_live, r.id, int(due))
  else
    zput(K_delayed, r.id, int(due))
    zdrop(K_live, r.id)
  end
  set(r, 'state', 'delayed')
end

-- The deadline that applies: before the first start of the task, its deadline to start; after the first start, its
-- deadline to end.
local function deadline(r) return r.started and r.run_by or (not r.started and r.start_by) end

local function arm(r)
  local at = deadline(r)
  if at then zput(K_timers, r.id, at) end
end

local function leave_queue(r)
  if r.state == 'queued' then
    local t, key = tenant(r.tenant), k_wait(r.tenant)
    zdrop(key, r.id)
    local list = t.list or {}
    for i, id in ipairs(list) do
      if id == r.id then
        table.remove(list, i)
        break
      end
    end
    if #list == 0 then
      zflush(key)
      if not (t.list and t.whole) then
        t.waits = nil
        waits(t)
      else
        t.waits = false
      end
      if not t.waits then
        t.emptied = true
        move(t)
      end
    end
  else
    zdrop(K_delayed, r.id)
    zdrop(K_due_soon, r.id)
  end
  if deadline(r) then zdrop(K_timers, r.id) end
end

-- The task at place `at` of a tenant's queue. `want`: how many of the tenant's tasks this script may claim.
local function queue_at(t, at, want)
  if not t.list or (at > #t.list and not t.whole) then
    zflush(k_wait(t.name))
    local upto = math.max(want, at)
    t.list = call('ZRANGE', k_wait(t.name), 0, upto)
    t.whole = #t.list <= upto
  end
  return t.list[at]
end

local function flush_tenants()
  if #moved == 0 then return end
  local shares, enter, stay, leave = {}, { 'ZADD', K_tenants }, { 'ZADD', K_tenants, 'XX' }, { 'ZREM', K_tenants }
  for _, t in ipairs(moved) do
    local share = exact(t.share)
    shares[t.name] = share
    if t.waits then
      enter[#enter + 1], enter[#enter + 2] = share, t.name
    elseif t.emptied then
      leave[#leave + 1] = t.name
    elseif t.waits == nil then
      stay[#stay + 1], stay[#stay + 2] = share, t.name
    end
    t.moved, t.emptied = nil, nil
  end
  moved = {}
  hflush(K_shares, shares)
  if enter[3] then call(unpack(enter)) end
  if stay[4] then call(unpack(stay)) end
  if leave[3] then call(unpack(leave)) end
end

local function before(a_share, a_name, b_share, b_name)
  return a_share < b_share or (a_share == b_share and a_name < b_name)
end

-- The next tenant, found without first writing the tenants in `moved` to Redis; nil if that is not possible. This is
-- possible if `moved` is empty, or if the only tenant in `moved` is also in `stored` and still has waiting tasks.
-- `stored`: the first two tenants, as Redis has them.
local function first_of(stored)
  if #moved > 1 or not stored[1] then return nil end
  local m = moved[1]
  if not m then return stored[1] end
  if m.emptied or (m.name ~= stored[1] and m.name ~= stored[3]) then return nil end
  local at = m.name == stored[1] and 3 or 1  -- the other of the two
  if not stored[at] or before(m.share, m.name, tonumber(stored[at + 1]), stored[at]) then return m.name end
  return stored[at]
end

-- The tenant at place `at` among the tenants with waiting tasks (0: the next one), or nil.
local function tenant_at(at)
  if at == 0 and head and head.waits
      and (not second_name or before(head.share, head.name, second_share, second_name)) then
    return head
  end
  head = nil
  local stored = call('ZRANGE', K_tenants, at, at + 1, 'WITHSCORES')
  local name = at == 0 and first_of(stored)
  if not name then
    if #moved > 0 then
      flush_tenants()
      stored = call('ZRANGE', K_tenants, at, at + 1, 'WITHSCORES')
    end
    name = stored[1]
  end
  if not name then return nil end
  local t = tenant(name)
  t.waits = true
  if at == 0 and name == stored[1] and (#moved == 0 or moved[1] == t) then
    head, second_share, second_name = t, tonumber(stored[4] or nil), stored[3]
  end
  return t
end

local function wake_leaders()
  if wakeups > 0 or recheck then
    local present = call('LLEN', K_wakeup)
    local push = { 'RPUSH', K_wakeup }
    for _ = 1, math.min(wakeups, WAKEUPS_MAX - present) do push[#push + 1] = '1' end
    -- A leader that claims one of many tasks, or none, may have taken the wake-up of another leader.
    if recheck and present == 0 and wakeups == 0 and call('EXISTS', K_tenants) == 1 then push[3] = '1' end
    if push[3] then call(unpack(push)) end
  end
  wakeups, recheck = 0, false
end

flushes[#flushes + 1] = function()
  flush_tenants()
  wake_leaders()
end

local function waiting() return call('ZCARD', K_live) - call('ZCARD', K_leases) + call('ZCARD', K_delayed) end
