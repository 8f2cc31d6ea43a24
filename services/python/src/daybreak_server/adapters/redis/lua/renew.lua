#!lua flags=allow-oom
-- Extends a lease. Answers the control bits.
local function run(ARGV)
  local id, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
  local r = load_task(id)
  if not r or r.token ~= token then return STALE end
  call('ZADD', K_leases, 'XX', int(meta('lease_clock') + lease_ms), id)
  return control(r)
end
