#!lua flags=allow-oom
-- include: clock common queue attempt claim
-- The next task for a group. What the group still holds (its last claim's answer was lost) goes back first.
local c = { group = ARGV[1], ranks = ARGV[2], lease_ms = tonumber(ARGV[3]), nonce = ARGV[4],
  spec_version = tonumber(ARGV[5]), drain = ARGV[6] == '1' }
release_held(c.group, 'claim_lost')
return claim_next(c)
