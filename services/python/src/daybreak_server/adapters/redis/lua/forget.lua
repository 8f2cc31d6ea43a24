#!lua flags=allow-oom
-- Removes an ended task whose files are gone: record, parameters, stream and indices together.
-- Answers 1, 0 where there is no such task, -1 where it has not ended.
local function run(ARGV)
  local id = ARGV[1]
  local r = load_task(id)
  if not r then return 0 end
  if not TERMINAL[r.state] then return -1 end
  call('DEL', k_task(id), k_spec(id), k_out(id), k_ev(id), k_preview(id))
  call('ZREM', k_index(r.tenant), id)
  call('ZREM', K_expiring, id)
  call('ZREM', K_dead, id)
  if r.idem then call('DEL', k_idem(r.idem)) end
  -- Nothing is left of the tenant, and it has no debt: as if it had never been here.
  if call('EXISTS', k_index(r.tenant)) == 0 and tenant(r.tenant).share <= meta('vtime') then
    call('HDEL', K_shares, r.tenant)
    call('HDEL', K_weights, r.tenant)
  end
  return 1
end
