-- The rules of a lease clock. Each pool has such a clock, and the registry has one. A tick moves it by at most
-- LEASE_STEP_MS. So a gap between ticks (an outage of Redis or of all gateways) ends no lease of 4 s or longer. After a
-- gap, no lease may end for GRACE_MS, so that holders can renew first.
--
-- These functions are pure. The caller stores the clock, and `grace`, the time on it from which leases may end.
local LeaseClock = {}

-- Returns the clock and the grace after a tick. `silence`: the time in ms since the last tick.
function LeaseClock.after(silence, clock, grace)
  -- Another gap within the grace does not extend it, so leases end even if every tick comes late.
  local graceful = silence > LEASE_STEP_MS and clock >= grace
  clock = clock + math.max(0, math.min(silence, LEASE_STEP_MS))
  return clock, graceful and clock + GRACE_MS or grace
end

function LeaseClock.leases_end(clock, grace) return clock >= grace end

function LeaseClock.is_over(lease_end, clock, grace)
  return LeaseClock.leases_end(clock, grace) and tonumber(lease_end) <= clock
end
