-- Streaming sessions: their records, and every way in which one gets or loses its group, or ends.
--
-- All of a session is in its journal (the keys `s:<id>…`), so that any group can continue it. A session is `waiting` (in
-- `sessions_waiting`), `active` (in `session_leases` and in the set of its group), or `ended` (its keys have a TTL). The
-- owner's token is in the record; a leader's write with another token changes nothing.
--
-- A gateway and a group never talk to each other. What the gateway does is announced in the group's inbox, whose name is
-- the nonce of the token; what the group does is announced in `session_events`.
do

-- For metrics: how long sessions waited for their first group, and those that lost theirs for the next one.
S.waits = {
  new = histogram('session_wait:new', TOTALS.WAIT_BUCKETS_MS),
  moved = histogram('session_wait:moved', TOTALS.WAIT_BUCKETS_MS),
}

-- A session's record: its fields by name, as text; nil if there is none.
function S.load(id)
  local flat = call('HGETALL', S.key.session(id))
  if #flat == 0 then return nil end
  local r = { id = id }
  for i = 1, #flat, 2 do r[flat[i]] = flat[i + 1] end
  return r
end

-- A record as it is now, for Python: {id, fields}.
function S.show(id) return { id, call('HGETALL', S.key.session(id)) } end

-- Adds an event to the session's history and to the stream that gateways read, under the same id.
function S.emit(id, kind, data)
  local at = call('XADD', S.session_events, 'MAXLEN', '~', S.EVENTS_MAX, '*', 'session', id, 'type', kind, 'data', data)
  call('XADD', S.key.session_history(id), 'MAXLEN', '~', S.HISTORY_MAX, at, 'type', kind, 'data', data)
  call('HSET', S.key.session(id), 'last_event', at)
  return at
end

-- Tells the owner that the session has news: `a` for audio, `x` if it is not the owner's any more. A leader that has
-- not renewed for a minute has no inbox, and looks at all its sessions when it returns.
function S.notify(r, what)
  local nonce = r.token and string.match(r.token, '^%d+%.(.+)$')
  if nonce then
    call('XADD', S.key.session_inbox(nonce), 'NOMKSTREAM', 'MAXLEN', '~', S.INBOX_MAX, '*', what, r.id)
  end
end

function S.wake(sessions)
  for _ = 1, math.min(sessions, WAKEUPS_MAX - call('LLEN', S.session_wakeup)) do
    call('RPUSH', S.session_wakeup, '1')
  end
end

local function leave_group(r)
  call('ZREM', S.session_leases, r.id)
  if r.group then call('SREM', S.key.group_sessions(r.group), r.id) end
end

-- Takes the session from its group; another takes it, at its old place.
function S.make_waiting(r, reason)
  leave_group(r)
  S.notify(r, 'x')
  call('HSET', S.key.session(r.id), 'state', 'waiting', 'waits_since', NOW_TEXT)
  call('HDEL', S.key.session(r.id), 'token', 'group')
  call('ZADD', S.sessions_waiting, r.opened, r.id)
  S.emit(r.id, 'waiting', '{"reason":"' .. reason .. '"}')
  S.wake(1)
end

local function ended_data(id, reason, err)
  local data = '{"reason":"' .. reason .. '","text":' .. cjson.encode(call('GETRANGE', S.key.session_text(id), -S.TEXT_MAX, -1))
  if err and err ~= '' then data = data .. ',"error":' .. err end
  return data .. '}'
end

-- The only way to the end.
function S.finish(r, reason, err)
  leave_group(r)
  S.notify(r, 'x')
  local key = S.key.session(r.id)
  call('HSET', key, 'state', 'ended', 'end', reason)
  if err and err ~= '' then call('HSET', key, 'error', err) end
  call('HDEL', key, 'token', 'group')
  S.emit(r.id, 'ended', ended_data(r.id, reason, err))
  for _, zset in ipairs({ S.sessions, S.sessions_waiting, S.session_timers }) do call('ZREM', zset, r.id) end
  call('DEL', S.key.session_audio(r.id), S.key.session_turns(r.id))
  for _, kept in ipairs({ key, S.key.session_text(r.id), S.key.session_history(r.id) }) do
    call('PEXPIRE', kept, r.timeout)
  end
  local length = math.max(0, NOW - tonumber(r.opened))
  local mean = tonumber(call('HGET', K_meta, 'session_ms') or nil)
  call('HSET', K_meta, 'session_ms', exact(mean and mean + S.HISTORY_WEIGHT * (length - mean) or length))
  add_total('sessions_ended:' .. reason, 1)
  add_total('sessions_ms', length)
end

-- For how long a client that finds no room should wait: until a session ends, if they end evenly.
function S.retry_ms()
  local length = tonumber(call('HGET', K_meta, 'session_ms') or S.LENGTH_MS)
  return math.max(1000, length / math.max(1, call('ZCARD', S.sessions)))
end

-- Whether every group that measures its lag says that it is full.
function S.full()
  local flat, live = call('HGETALL', S.session_groups), false
  for i = 2, #flat, 2 do
    local full, ends = string.match(flat[i], '^%S+ (%d) .* (%d+)$')
    if tonumber(ends) > meta('lease_clock') then
      if full == '0' then return false end
      live = true
    end
  end
  return live
end

-- Gives up all sessions of a group that has left.
function S.release_group(group, reason)
  for _, id in ipairs(call('SMEMBERS', S.key.group_sessions(group))) do
    local r = S.load(id)
    if r and r.group == group then
      S.make_waiting(r, reason)
      add_total('sessions_moved:' .. reason, 1)
    end
  end
  call('DEL', S.key.group_sessions(group))
  call('HDEL', S.session_groups, group)
end

local function due(key, upto, limit)
  return call('ZRANGE', key, '-inf', int(upto), 'BYSCORE', 'LIMIT', 0, limit)
end

-- What depends on time: leases that were lost, and sessions without audio. Returns whether more is due.
function S.tick(lease_clock, leases_expire, limit)
  if call('EXISTS', S.sessions, S.session_groups) == 0 then return false end
  local lost = leases_expire and due(S.session_leases, lease_clock, limit) or {}
  for _, id in ipairs(lost) do S.make_waiting(S.load(id), 'lease_lost') end
  if #lost > 0 then add_total('sessions_moved:lease_lost', #lost) end
  local idle = due(S.session_timers, NOW, limit)
  for _, id in ipairs(idle) do S.finish(S.load(id), 'idle') end
  local groups = call('HGETALL', S.session_groups)
  for i = 1, #groups, 2 do
    if leases_expire and tonumber(string.match(groups[i + 1], '%d+$')) <= lease_clock then
      call('HDEL', S.session_groups, groups[i])
    end
  end
  return #lost == limit or #idle == limit
end

end
