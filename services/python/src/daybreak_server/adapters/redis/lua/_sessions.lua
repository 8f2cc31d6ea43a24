-- Streaming sessions: their records, and every way in which a session loses its group or ends.
--
-- All of a session is in its journal (the keys `s:<id>…`), so that any group can continue it. A session is `waiting` (in
-- `sessions_waiting`), `active` (in `session_leases` and in the set of its group), or `ended` (its keys have a TTL). The
-- owner's token is in the record; a leader's write with another token changes nothing.
--
-- A gateway and a group never connect to each other. A gateway announces its writes in the group's inbox, whose name is
-- the nonce of the token. A group announces its writes in `session_events`.
do

-- What the keys of a session hold.
local kinds = { session = 'hash', session_audio = 'stream', session_turns = 'list', session_text = 'string',
  session_history = 'stream' }
-- How long sessions waited: `new` for their first group, `moved` for another one after they lost theirs.
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

-- Reports a change of the session's state to the caller, which logs it. `data` is JSON.
function S.report(r, kind, data)
  changes[#changes + 1] = { r.id, 'session_' .. kind, r.attempt or '0', r.group or '', r.tenant or '', r.trace or '', data }
end

-- Announces a change of the session to its owner: `a` for audio, `x` if the owner has lost the session, with the reason.
-- A leader that has not renewed for a minute has no inbox, and reads all its sessions when it returns.
function S.notify(r, what, why)
  local nonce = r.token and string.match(r.token, '^%d+%.(.+)$')
  if not nonce then return end
  local entry = { 'XADD', S.key.session_inbox(nonce), 'NOMKSTREAM', 'MAXLEN', '~', S.INBOX_MAX, '*', what, r.id }
  if why then entry[#entry + 1], entry[#entry + 2] = 'why', why end
  call(unpack(entry))
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

-- Whether too many groups in a row have died while they worked on this session. Such a session would kill one group
-- after the other. If the watchdog or the leader reports that a group has ended, the report names the sessions that the
-- group worked on. Without such a report, each session that had audio or its last turn to process may be the cause.
local function kills_groups(r, reason, worked_on)
  if reason == 'released' then return false end
  if worked_on then
    if not worked_on[r.id] then return false end
  elseif tonumber(r.received) <= tonumber(r.consumed) and not r.input_ended then
    return false
  end
  return call('HINCRBY', S.key.session(r.id), 'losses', 1) > S.LOSSES_MAX
end

-- Takes the session from its group. If the session has lost too many groups, it fails. Otherwise another group claims
-- it before any new session.
function S.make_waiting(r, reason, worked_on)
  if kills_groups(r, reason, worked_on) then
    return S.finish(r, 'failed', cjson.encode({ code = 'groups_lost',
      message = int(S.LOSSES_MAX + 1) .. ' groups in a row were lost before they completed a turn of this session.' }))
  end
  leave_group(r)
  S.notify(r, 'x', reason)
  call('HSET', S.key.session(r.id), 'state', 'waiting', 'waits_since', NOW_TEXT, 'lost_group', r.group or '',
    'lost_reason', reason)
  call('HDEL', S.key.session(r.id), 'token', 'group')
  call('ZADD', S.sessions_waiting, int(tonumber(r.opened) - S.ORPHAN_BAND), r.id)
  S.emit(r.id, 'waiting', '{"reason":"' .. reason .. '"}')
  S.wake(1)
  add_total('sessions_moved:' .. reason, 1)
  S.report(r, 'released', '{"reason":"' .. reason .. '"}')
end

local function ended_data(id, reason, err)
  local data = '{"reason":"' .. reason .. '","text":' .. cjson.encode(call('GETRANGE', S.key.session_text(id), -S.TEXT_MAX, -1))
  if err and err ~= '' then data = data .. ',"error":' .. err end
  return data .. '}'
end

-- Removes a session from the sets of open sessions. The tenant is not taken from the record, which may be lost.
local function leave_open(id)
  local tenant = call('HGET', S.session_tenants, id)
  if tenant then
    call('ZREM', S.key.tenant_sessions(tenant), id)
    call('HDEL', S.session_tenants, id)
  end
  for _, zset in ipairs({ S.sessions, S.sessions_waiting, S.session_timers }) do call('ZREM', zset, id) end
end

-- Ends a session. Every path that ends a session calls this function.
function S.finish(r, reason, err)
  leave_group(r)
  S.notify(r, 'x', reason)
  local key = S.key.session(r.id)
  call('HSET', key, 'state', 'ended', 'end', reason)
  if err and err ~= '' then call('HSET', key, 'error', err) end
  call('HDEL', key, 'token', 'group')
  S.emit(r.id, 'ended', ended_data(r.id, reason, err))
  leave_open(r.id)
  call('DEL', S.key.session_audio(r.id), S.key.session_turns(r.id))
  for _, kept in ipairs({ key, S.key.session_text(r.id), S.key.session_history(r.id) }) do
    call('PEXPIRE', kept, r.timeout)
  end
  local length = math.max(0, NOW - tonumber(r.opened))
  local mean = tonumber(call('HGET', K_meta, 'session_ms') or nil)
  call('HSET', K_meta, 'session_ms', exact(mean and mean + S.HISTORY_WEIGHT * (length - mean) or length))
  add_total('sessions_ended:' .. reason, 1)
  add_total('sessions_ms', length)
  S.report(r, 'ended', '{"reason":"' .. reason .. '"' .. (err and err ~= '' and ',"error":' .. err or '') .. '}')
end

-- Removes the keys of a session whose record is lost. Without its record, `S.finish` cannot end it.
local function drop(id)
  leave_open(id)
  call('ZREM', S.session_leases, id)
  for name in pairs(kinds) do call('DEL', S.key[name](id)) end
end

-- Whether an error is about what the keys hold. Otherwise it is about the server, and the call may succeed later.
local function is_damage(message)
  for _, sign in ipairs({ 'WRONGTYPE', 'not an integer', 'maximum allowed size', 'equal or smaller', 'attempt to' }) do
    if string.find(message, sign, 1, true) then return true end
  end
  return false
end

-- Ends a session that cannot be worked on, because its keys do not hold what they should.
local function damaged(id, err)
  local message = type(err) == 'table' and err.err or tostring(err)
  if not is_damage(message) then error(err) end
  for name, kind in pairs(kinds) do
    local key = S.key[name](id)
    local found = call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then call('DEL', key) end
  end
  local r = S.load(id)
  local cause = cjson.encode({ code = 'journal_damaged', message = 'The journal of the session is damaged: ' .. message })
  if not (r and pcall(S.finish, r, 'failed', cause)) then drop(id) end
end

-- Runs `work` on a session, and returns its result. A damaged session is ended instead, so that the script continues
-- with the other sessions.
function S.guarded(id, work, ...)
  local done, result = pcall(work, ...)
  if done then return result end
  damaged(id, result)
end

-- How long a client that finds no room should wait: the expected time until a session ends.
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

local function orphan(id, reason)
  local r = S.load(id)
  if r then S.make_waiting(r, reason) else drop(id) end
end

-- Restarts the timeout of a session, because its client was active or, after the end of the input, its model worked on
-- it.
function S.touch(id, timeout)
  call('ZADD', S.session_timers, int(NOW + tonumber(timeout)), id)
end

-- Ends a session whose timeout is over. After the end of its input, a session may wait for a group as long as it takes,
-- because all of its audio is in the journal.
local function expire(id)
  local r = S.load(id)
  if not r then return drop(id) end
  if r.input_ended and not r.group then return S.touch(id, r.timeout) end
  S.finish(r, 'idle')
end

local function take_from(id, group, reason, worked_on)
  local r = S.load(id)
  if r and r.group == group then S.make_waiting(r, reason, worked_on) end
end

-- Releases all sessions of a group that has left. `worked_on`: the sessions that the group worked on when it died; nil
-- if that is not known.
function S.release_group(group, reason, worked_on)
  for _, id in ipairs(call('SMEMBERS', S.key.group_sessions(group))) do
    S.guarded(id, take_from, id, group, reason, worked_on)
  end
  call('DEL', S.key.group_sessions(group))
  call('HDEL', S.session_groups, group)
end

local function due(key, upto, limit)
  return call('ZRANGE', key, '-inf', int(upto), 'BYSCORE', 'LIMIT', 0, limit)
end

-- Handles the changes that depend on time: lost leases, and idle sessions. Returns whether more are due.
function S.tick(lease_clock, leases_expire, limit)
  if call('EXISTS', S.sessions, S.session_groups) == 0 then return false end
  local lost = leases_expire and due(S.session_leases, lease_clock, limit) or {}
  for _, id in ipairs(lost) do S.guarded(id, orphan, id, 'lease_lost') end
  local idle = due(S.session_timers, NOW, limit)
  for _, id in ipairs(idle) do S.guarded(id, expire, id) end
  local groups = call('HGETALL', S.session_groups)
  for i = 1, #groups, 2 do
    if leases_expire and tonumber(string.match(groups[i + 1], '%d+$')) <= lease_clock then
      call('HDEL', S.session_groups, groups[i])
    end
  end
  return #lost == limit or #idle == limit
end

end
