#!lua flags=allow-oom
-- Writes the results of a group's sessions (events, text, the newest turn), and deletes the turns and the audio
-- that have left the window. If a commit's number has already been written, the commit changes nothing, so a call
-- whose reply was lost may be repeated. A commit with the number 0 has no turn, and is always written.
-- Returns the ids of the sessions that the group has lost. The script writes nothing to these sessions. It also returns
-- the ids of sessions whose journal is damaged, and ends these sessions.

-- The text of an event belongs to the segment in progress. An event that ends a segment says at which position the
-- next one starts.
local function write_event(id, e)
  if e.text ~= '' then call('APPEND', S.key.session_text(id), e.text) end
  if e.segment ~= '' then
    call('HSET', S.key.session(id), 'segment', e.segment, 'segment_start', e.segment_start,
      'segment_from', call('STRLEN', S.key.session_text(id)))
  end
  S.emit(id, e.type, e.data)
end

local function write_turn(c)
  local key = S.key.session_turns(c.session)
  local newest = call('LINDEX', key, -1)
  if newest and string.match(newest, '^%d+') == c.turn_start then
    call('LSET', key, -1, c.turn)
  else
    call('RPUSH', key, c.turn)
  end
  if c.consumed ~= '' then
    call('HSET', S.key.session(c.session), 'consumed', c.consumed)
    call('HDEL', S.key.session(c.session), 'losses')
  end
end

local function trim(c)
  local turns, from = S.key.session_turns(c.session), tonumber(c.keep_from)
  local oldest = call('LINDEX', turns, 0)
  while oldest and tonumber(string.match(oldest, '^%d+')) < from do
    call('LPOP', turns)
    oldest = call('LINDEX', turns, 0)
  end
  -- Deletes the audio up to `keep_from`. The mark of the input's end stays, even if it is at this position.
  call('XTRIM', S.key.session_audio(c.session), 'MINID', c.keep_from .. '-2')
end

-- Wakes the gateways that wait until the model has processed a turn. If no gateway waits, as for most turns, this
-- writes no entry.
local function announce_progress(c)
  local key = S.key.session(c.session)
  if c.consumed == '' or call('HDEL', key, 'watched') == 0 then return end
  call('XADD', S.session_events, 'MAXLEN', '~', S.EVENTS_MAX, '*', 'session', '', 'consumed', c.session)
end

local function write(c, ARGV, at)
  local key = S.key.session(c.session)
  for i = 0, tonumber(c.events) - 1 do write_event(c.session, read.session_draft(ARGV, at + i * width.session_draft)) end
  if c.turn ~= '' then write_turn(c) end
  if c.keep_from ~= '' then trim(c) end
  if c.multiplier ~= '' then
    call('HSET', key, 'multiplier', c.multiplier)
    S.report(S.load(c.session), 'degraded', '{"latency_multiplier":' .. c.multiplier .. '}')
  end
  call('HSET', key, 'commit', c.number)
  announce_progress(c)
  local stored = call('HMGET', key, 'input_ended', 'timeout')
  -- Audio restarts the timeout of a session. After the end of the input, the work of the model restarts it instead.
  if stored[1] then S.touch(c.session, stored[2]) end
  if c.ends ~= '' then S.finish(S.load(c.session), c.ends, c.error) end
  return true
end

local function run(ARGV)
  local at, lost = 1, {}
  while ARGV[at] do
    local c = read.session_write(ARGV, at)
    at = at + width.session_write
    local stored = call('HMGET', S.key.session(c.session), 'token', 'commit')
    if stored[1] ~= c.token then
      lost[#lost + 1] = c.session
    elseif c.number == '0' or tonumber(c.number) > tonumber(stored[2] or '0') then
      if not S.guarded(c.session, write, c, ARGV, at) then lost[#lost + 1] = c.session end
    end
    at = at + tonumber(c.events) * width.session_draft
  end
  flush()
  return lost
end
