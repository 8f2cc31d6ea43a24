#!lua flags=allow-oom
-- Ends a session at once. An ended session does not change. Answers {`session`, the session} or {`unknown`}.
local function run(ARGV)
  local a = read.session_closing(ARGV, 1)
  local r = S.load(a.session)
  if not r then return { 'unknown' } end
  if r.state ~= 'ended' then
    S.finish(r, a.reason)
    want_groups(a.target_load)
    flush()
  end
  return { 'session', S.show(a.session) }
end
