#!lua
-- Accepts tasks, one after the other. For each task it writes the record, input, index entry, queue entry and event.
-- When `maxmemory` is reached, Redis refuses this script, so that running tasks can still write.
-- ARGV: the limit, then a submission for each task. Answers one item for each task: {'new', created, state, position,
-- wait, event id}, {'known' or 'repeated', the task as `show` describes it}, {'mismatch', the id of the earlier task}
-- or {'full'}.
local max_queued, waiting_now

local function known(id)
  flush()
  return { 'known', show(id) }
end

-- The task that was created with this idempotency key, if there is one.
local function submitted_before(hash, body_hash)
  local stored = call('GET', k_idempotency(hash))
  if not stored then return nil end
  local id, stored_body = string.match(stored, '^(%S+) (.*)$')
  if stored_body ~= body_hash then return { 'mismatch', id } end
  flush()
  return { 'repeated', show(id) }
end

local function set_weight(t, weight)
  if tonumber(weight) == t.weight then return end
  t.weight = tonumber(weight)
  set_meta('equal_weights', 0, '0')
  if others and other_by_name[t.name] then other_by_name[t.name].weight = t.weight end
  if t.weight == 1 then call('HDEL', K_weights, t.name) else call('HSET', K_weights, t.name, weight) end
end

-- How many of the tenant's waiting tasks come before `order`. A new task usually comes last, so this function
-- remembers the order of the last task, and rarely has to count the queue.
local function count_ahead(t, order)
  local key = k_wait(t.name)
  if not t.last then
    t.count = call('ZCARD', key)
    t.waits = t.count > 0
    t.last = t.waits and tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]) or 0
  end
  if order > t.last then return t.count end
  zflush(key)
  return call('ZCOUNT', key, '-inf', '(' .. int(order))
end

local function queue_up(r, t, order, start_at)
  local ahead = count_ahead(t, order)
  if start_at and start_at > NOW then
    delay(r, start_at)
    add_total('submitted_delayed', 1)
  else
    enqueue(r)
    t.count, t.last = t.count + 1, math.max(t.last, order)
    if others then joined(t) end
  end
  arm(r)
  return position_of(t, ahead, r.est)
end

local function new_record(s, order, start_at)
  local r, start_within = { id = s.task }, tonumber(s.start_within)
  tasks[s.task] = r
  set(r, 'tenant', s.tenant)
  set(r, 'order', int(order))
  set(r, 'est', s.estimate_s)
  set(r, 'cost', s.cost)
  set(r, 'retain', s.retention_ms)
  set(r, 'created', NOW_TEXT)
  if tonumber(s.max_strikes) ~= MAX_STRIKES then set(r, 'max_strikes', s.max_strikes) end
  if tonumber(s.spec_version) ~= FIRST_SPEC_VERSION then set(r, 'spec_version', s.spec_version) end
  if s.replay_of ~= '' then set(r, 'replay_of', s.replay_of) end
  if s.idempotency_hash ~= '' then
    set(r, 'idem', s.idempotency_hash)
    call('SET', k_idempotency(s.idempotency_hash), s.task .. ' ' .. s.body_hash)
  end
  if start_at then set(r, 'start_at', int(start_at)) end
  if s.run_within ~= '' then set(r, 'run_within', s.run_within) end
  if start_within then set(r, 'start_by', int(math.max(start_at or 0, NOW) + start_within)) end
  return r
end

-- `all_new`: none of the ids of this call is stored.
local function accept(s, all_new)
  -- If the id is stored, this submit repeats an earlier one whose answer was lost.
  if tasks[s.task] or (not all_new and call('EXISTS', k_task(s.task)) == 1) then return known(s.task) end
  local before = s.idempotency_hash ~= '' and submitted_before(s.idempotency_hash, s.body_hash)
  if before then return before end
  waiting_now = waiting_now or waiting()
  if waiting_now >= max_queued then return { 'full' } end
  waiting_now = waiting_now + 1

  add_meta('seq', 1)
  local t, order = tenant(s.tenant), tonumber(s.priority) * PRIORITY_BAND + meta('seq')
  local start_at = tonumber(s.start_at)
  local r = new_record(s, order, start_at)
  set_weight(t, s.weight)
  -- The totals begin with 0, because Prometheus sees no increase in the first value of a series.
  if t.is_new then t.is_new = not tenant_totals.add(s.tenant) end
  call('SET', k_spec(s.task), s.spec)
  zput(k_index(s.tenant), s.task, '0')
  local position = queue_up(r, t, order, start_at)
  local wait = wait_s(position, r.state == 'delayed' and start_at or nil)
  set(r, 'pos', int(position))
  emit_in_record(r, 'queued_event_id', 'queued', queued_data(r.pos))
  return { 'new', r.created, r.state, r.pos, wait and exact(wait) or '', r.queued_event_id }
end

local function run(ARGV)
  max_queued, waiting_now = tonumber(read.submit_limit(ARGV, 1).max_queued), nil
  local submissions, names, replies = {}, {}, {}
  for at = width.submit_limit + 1, #ARGV, width.submission do
    local s = read.submission(ARGV, at)
    submissions[#submissions + 1], names[#names + 1] = s, k_task(s.task)
  end
  local all_new = call('EXISTS', unpack(names)) == 0
  for i, s in ipairs(submissions) do replies[i] = accept(s, all_new) end
  flush()
  return replies
end
