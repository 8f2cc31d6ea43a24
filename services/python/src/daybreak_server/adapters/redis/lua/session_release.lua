#!lua flags=allow-oom
-- Releases sessions, so that another group can claim them at once. ARGV: pairs of a session and a token.
local function run(ARGV)
  local released = 0
  for i = 1, #ARGV, 2 do
    local r = S.load(ARGV[i])
    if r and r.token == ARGV[i + 1] then
      S.make_waiting(r, 'released')
      released = released + 1
    end
  end
  add_total('sessions_moved:released', released)
  flush()
  return released
end
