#!lua flags=allow-oom
-- Releases sessions, so that another group can claim them at once. ARGV: pairs of a session and a token.
local function release(id, token)
  local r = S.load(id)
  if not r or r.token ~= token then return false end
  S.make_waiting(r, 'released')
  return true
end

local function run(ARGV)
  local released = 0
  for i = 1, #ARGV, 2 do
    if S.guarded(ARGV[i], release, ARGV[i], ARGV[i + 1]) then released = released + 1 end
  end
  flush()
  return released
end
