#!lua flags=allow-oom,no-writes
-- Returns the sessions that have not ended, of one tenant or of all, oldest first.
local function run(ARGV)
  local a, found = read.session_page(ARGV, 1), {}
  local sessions = a.tenant == '' and S.sessions or S.key.tenant_sessions(a.tenant)
  for _, id in ipairs(call('ZRANGE', sessions, 0, tonumber(a.limit) - 1)) do
    local shown = S.show(id)
    if #shown[2] > 0 then found[#found + 1] = shown end
  end
  return found
end
