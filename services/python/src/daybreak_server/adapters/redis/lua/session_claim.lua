#!lua flags=allow-oom
-- Gives a group sessions that no group owns: orphans before new ones, oldest first.
-- Answers {whether the group drains, sessions as {id, fields, turns, text of the segment in progress}}.

local function take(id, a)
  local key = S.key.session(id)
  local attempt = call('HINCRBY', key, 'attempt', 1)
  call('HSET', key, 'state', 'active', 'group', a.group, 'token', int(attempt) .. '.' .. a.nonce)
  local since = call('HMGET', key, 'opened', 'waits_since', 'input_ended', 'timeout')
  observe(since[2] and S.waits.moved or S.waits.new, math.max(0, NOW - tonumber(since[2] or since[1])))
  if since[3] then S.touch(id, since[4]) end  -- the group has the whole timeout for its first turn
  call('HDEL', key, 'commit')
  call('ZREM', S.sessions_waiting, id)
  call('ZADD', S.session_leases, int(meta('lease_clock') + tonumber(a.lease_ms)), id)
  call('SADD', S.key.group_sessions(a.group), id)
  call('XLEN', S.key.session_audio(id))  -- fails if the audio cannot be read
  S.emit(id, 'started', '{"group":' .. cjson.encode(a.group) .. ',"attempt":' .. int(attempt) .. '}')
  S.report(S.load(id), 'claimed', '{}')
  local from = call('HGET', key, 'segment_from') or '0'
  return { id, call('HGETALL', key), call('LRANGE', S.key.session_turns(id), 0, -1),
    call('GETRANGE', S.key.session_text(id), from, -1) }
end

local function run(ARGV)
  local a = read.session_claiming(ARGV, 1)
  if call('HEXISTS', k_group(a.group), 'drain') == 1 then
    S.wake(math.min(1, call('ZCARD', S.sessions_waiting)))  -- this group may have taken the wake-up of another one
    return { 1, {} }
  end
  local inbox, claims = S.key.session_inbox(a.nonce), {}
  local room = math.min(S.CLAIM_MAX, tonumber(a.room))
  local upto = a.orphans_only == '1' and '(0' or '+inf'
  local waiting = room > 0 and call('ZRANGE', S.sessions_waiting, '-inf', upto, 'BYSCORE', 'LIMIT', 0, room) or {}
  if #waiting > 0 and call('EXISTS', inbox) == 0 then call('XADD', inbox, '*', 's', '') end
  if #waiting > 0 then call('PEXPIRE', inbox, S.INBOX_MS) end
  for _, id in ipairs(waiting) do claims[#claims + 1] = S.guarded(id, take, id, a) end
  if call('EXISTS', S.sessions_waiting) == 0 then
    call('DEL', S.session_wakeup)
  elseif call('EXISTS', S.session_wakeup) == 0 then
    S.wake(1)
  end
  flush()
  return { 0, claims }
end
