#!lua flags=allow-oom,no-writes
-- A pool's numbers at one moment, and its groups (at most 500).
local function run(ARGV)
  local groups = {}
  for _, key in ipairs({ K_groups, K_gone }) do
    for _, group in ipairs(call('ZRANGE', key, 0, 499)) do
      groups[#groups + 1] = { group, call('HGETALL', k_group(group)) }
    end
  end
  local live, running, soon = call('ZCARD', K_live), call('ZCARD', K_leases), call('ZCARD', K_soon)
  local oldest = call('ZRANGE', K_live, 0, 0, 'WITHSCORES')
  local since = tonumber(oldest[2] or nil)
  local wait = since and since <= NOW and NOW - since or -1
  return { live - running - soon, soon + call('ZCARD', K_delayed), running, live, int(wait),
    call('HGETALL', K_meta), groups, int(NOW), call('GET', K_told) or '', call('GET', K_failure) or '',
    call('ZRANGE', K_closed, '(' .. int(meta('lease_clock')), '+inf', 'BYSCORE') }
end
