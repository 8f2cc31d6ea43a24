#!lua flags=allow-oom,no-writes
-- Returns the numbers and the groups of a pool at one moment: the records of at most GROUPS_MAX groups, and
-- the ids of the other groups.
-- ARGV may have ids of groups. Then the script returns only the records of these groups (at most GROUPS_MAX).

local function run(ARGV)
  local groups, others = {}, {}
  local function add(ids)
    for _, group in ipairs(ids) do
      if #groups < GROUPS_MAX then
        groups[#groups + 1] = { group, call('HGETALL', k_group(group)) }
      else
        others[#others + 1] = group
      end
    end
  end
  if #ARGV > 0 then
    add(ARGV)
    return groups
  end
  for _, key in ipairs({ K_groups, K_gone }) do add(call('ZRANGE', key, 0, -1)) end
  local live, running, soon = call('ZCARD', K_live), call('ZCARD', K_leases), call('ZCARD', K_due_soon)
  local oldest = math.max(unpack(oldest_waits()))
  local requests, wanted, needed_ms = demand_now()
  return { live - running - soon, soon + call('ZCARD', K_delayed), running, live, int(oldest),
    call('HGETALL', K_meta), groups, int(NOW), call('GET', K_operator_report) or '', call('GET', K_failure) or '',
    call('ZRANGE', K_cordoned, '(' .. int(meta('lease_clock')), '+inf', 'BYSCORE'),
    int(requests), wanted, int(needed_ms), others }
end
