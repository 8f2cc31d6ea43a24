#!lua flags=allow-oom
-- Deletes the record, input, events and index entries of an ended task together. The task's files are deleted already.
-- Answers 1 if it deleted the task, 0 if there is no such task, or -1 if the task has not ended.
local function run(ARGV)
  local id = read.deletion(ARGV, 1).task
  local r = load_task(id)
  if not r then return 0 end
  if not TERMINAL[r.state] then return -1 end
  report_change(r, 'deleted', '{}')
  call('DEL', k_task(id), k_spec(id), k_out(id), k_ev(id), k_preview(id))
  call('ZREM', k_index(r.tenant), id)
  call('ZREM', K_expiring, id)
  call('ZREM', K_dead, id)
  if r.idem then call('DEL', k_idempotency(r.idem)) end
  if call('EXISTS', k_index(r.tenant)) == 0 then
    tenant_totals.remove(r.tenant)
    -- The tenant is removed too, unless its virtual time is ahead of the pool's. If a removed tenant submits again, it
    -- starts as a new one.
    if tenant(r.tenant).share <= meta('vtime') then
      call('HDEL', K_shares, r.tenant)
      call('HDEL', K_weights, r.tenant)
    end
  end
  return 1
end
