#!lua
-- Appends audio to a session, and skips audio that the journal already has. Until the input has ended, each call that
-- leaves no gap counts as activity of the session, even if the call appends nothing.
-- When `maxmemory` is reached, Redis refuses this script, and the gateway calls it again.
-- Answers {`session`, the session}, {`gap`, the position from which audio must be sent}, {`backlog`} if too much audio
-- is not processed yet, {`ended`, why} or {`unknown`}.
local function append(a)
  local key, id = S.key.session(a.session), a.session
  local stored = call('HMGET', key, 'state', 'received', 'consumed', 'input_ended', 'token', 'timeout', 'end')
  if not stored[1] then return { 'unknown' } end
  if stored[1] == 'ended' then return { 'ended', stored[7] } end
  local received, at = tonumber(stored[2]), tonumber(a.at)
  if stored[4] then return { 'session', S.show(id) } end  -- nothing follows the end of the input
  if at > received then return { 'gap', int(received) } end
  local new, ends = math.max(0, at + #a.samples / 2 - received), a.ends == '1'
  if new > 0 then
    if received + new - tonumber(stored[3]) > S.BACKLOG_MAX then
      S.touch(id, stored[6])
      return { 'backlog' }
    end
    local samples = at == received and a.samples or string.sub(a.samples, (received - at) * 2 + 1)
    received = received + new
    call('XADD', S.key.session_audio(id), int(received) .. '-1', 'a', samples)
  end
  if ends then
    call('XADD', S.key.session_audio(id), int(received) .. '-2', 'e', '1')
    call('HSET', key, 'input_ended', '1')
  end
  call('HSET', key, 'received', int(received), 'touched', NOW_TEXT)
  S.touch(id, stored[6])
  if new > 0 or ends then S.notify({ id = id, token = stored[5] }, 'a') end
  return { 'session', S.show(id) }
end

local function run(ARGV)
  local a = read.session_audio(ARGV, 1)
  return S.guarded(a.session, append, a) or { 'ended', 'failed' }
end
