#!lua flags=allow-oom
-- Extends a lease. Answers the control bits.
local function run(ARGV)
  local a = read.renewal(ARGV, 1)
  local r = load_task(a.task)
  if not r or r.token ~= a.token then return STALE end
  call('ZADD', K_leases, 'XX', int(meta('lease_clock') + tonumber(a.lease_ms)), a.task)
  return control(r)
end
