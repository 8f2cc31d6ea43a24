#!lua flags=allow-oom,no-writes
-- Returns the sessions that have not ended, oldest first.
local function run(ARGV)
  local a, found = read.session_page(ARGV, 1), {}
  for i, id in ipairs(call('ZRANGE', S.sessions, 0, tonumber(a.limit) - 1)) do found[i] = S.show(id) end
  return found
end
