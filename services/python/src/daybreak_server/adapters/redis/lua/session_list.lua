#!lua flags=allow-oom,no-writes
-- Answers the sessions that have not ended, oldest first. ARGV: how many at most.
local function run(ARGV)
  local found = {}
  for i, id in ipairs(call('ZRANGE', S.sessions, 0, math.min(S.LIST_MAX, tonumber(ARGV[1])) - 1)) do found[i] = S.show(id) end
  return found
end
