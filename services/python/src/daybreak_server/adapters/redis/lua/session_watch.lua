#!lua flags=allow-oom
-- Returns a session, and marks it as watched: the next commit that processes audio of it announces this to gateways.
-- Answers {`session`, the session} or {`unknown`}, which stands for a session of another tenant, too.
local function run(ARGV)
  local a = read.session_watching(ARGV, 1)
  local key = S.key.session(a.session)
  if call('HGET', key, 'tenant') ~= a.tenant then return { 'unknown' } end
  if call('HGET', key, 'state') ~= 'ended' then call('HSET', key, 'watched', '1') end
  return { 'session', S.show(a.session) }
end
