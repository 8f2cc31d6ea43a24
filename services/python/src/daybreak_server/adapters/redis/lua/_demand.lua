-- The demand of a pool of kind `online`: the requests that its gateways hold or have sent to groups, and the groups
-- that these requests need. The demand of a pool of kind `sessions` is its open sessions.
--
-- Each gateway has a field in the hash `demand`, with the value `<requests> <end>`: its number of requests, and the end
-- of its lease on the lease clock. The requests of a dead gateway therefore count until its lease ends. An outage of
-- Redis ends no lease. If n groups are needed, the sorted set `wanted` has the members 1 to n, because KEDA can read
-- the size of a sorted set but cannot divide. The score of member k is the time from which at least k groups have
-- been needed.
--
-- Lua allows 200 locals in a chunk, so only the two functions that scripts call are locals of the library.
local want_groups, demand_now

do
-- The number of requests or sessions that one group should have. If an operator manages the groups, the GeneratorPool
-- sets this number. Otherwise the caller sets it (`stated`).
local function target_load_of(stated)
  local reported = call('EXISTS', K_operator_report) == 1 and call('HGET', K_meta, 'target_load')
  return tonumber(reported or stated)
end

-- Adds up the requests of all gateways, and removes the entries whose lease has ended.
local function requests_held()
  local lease_clock, grace = meta('lease_clock'), meta('grace')
  local flat, sum, ended = call('HGETALL', K_demand), 0, {}
  for i = 1, #flat, 2 do
    local requests, lease_end = string.match(flat[i + 1], '^(%d+) (%d+)$')
    if LeaseClock.is_over(lease_end, lease_clock, grace) then
      ended[flat[i]] = false
    else
      sum = sum + tonumber(requests)
    end
  end
  hflush(K_demand, ended)
  return sum
end

-- Updates `wanted`. `target_load`: empty for a pool of kind `jobs`, which has no demand.
function want_groups(target_load)
  if target_load == '' then return call('DEL', K_demand, K_wanted) end
  local requests = requests_held() + call('ZCARD', S.sessions)
  local before = call('ZCARD', K_wanted)
  if requests == 0 and before == 0 then return end
  local wanted = math.min(WANTED_MAX, math.ceil(requests / target_load_of(target_load)))
  for n = before + 1, wanted do zput(K_wanted, int(n), NOW_TEXT) end
  for n = wanted + 1, before do zdrop(K_wanted, int(n)) end
  zflush(K_wanted)
end

-- Returns three numbers: the requests or sessions, the groups that they need, and for how many ms at least one
-- group has been needed (-1: no group is needed).
function demand_now()
  local entries, requests = call('HVALS', K_demand), call('ZCARD', S.sessions)
  if not entries[1] and requests == 0 then return 0, 0, -1 end
  for _, entry in ipairs(entries) do requests = requests + tonumber(string.match(entry, '^%d+')) end
  local since = call('ZSCORE', K_wanted, '1')
  return requests, call('ZCARD', K_wanted), since and math.max(0, NOW - since) or -1
end

end
