#!lua flags=allow-oom
-- Replaces a gateway's entry in the pool's demand, and updates the number of groups wanted.
local function run(ARGV)
  local a = read.published_demand(ARGV, 1)
  if tonumber(a.requests) > 0 then
    call('HSET', K_demand, a.gateway, a.requests .. ' ' .. int(meta('lease_clock') + tonumber(a.ttl_ms)))
  else
    call('HDEL', K_demand, a.gateway)
  end
  want_groups(a.target_load)
  return call('ZCARD', K_wanted)
end
