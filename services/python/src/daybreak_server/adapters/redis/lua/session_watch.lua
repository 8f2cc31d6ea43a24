#!lua flags=allow-oom
-- Returns a session, and unless it has ended, marks it as watched. The next commit that processes some of its audio then announces this
-- progress to gateways and removes the mark.
-- Answers {`session`, the session}, or {`unknown`} if there is no such session or it belongs to another tenant.
local function run(ARGV)
  local a = read.session_watching(ARGV, 1)
  local key = S.key.session(a.session)
  if call('HGET', key, 'tenant') ~= a.tenant then return { 'unknown' } end
  if call('HGET', key, 'state') ~= 'ended' then call('HSET', key, 'watched', '1') end
  return { 'session', S.show(a.session) }
end
