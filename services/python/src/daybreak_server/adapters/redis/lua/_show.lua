-- A task as it is now, for Python: {id, record, spec, out, position, wait, last event}. Call `flush` first.
local function show(id)
  local fields = call('HGETALL', k_task(id))
  if #fields == 0 then return nil end
  local r = {}
  for i = 1, #fields, 2 do r[fields[i]] = fields[i + 1] end
  local position, wait = '', ''
  if r.state == 'queued' or r.state == 'delayed' then
    local due
    if r.state == 'delayed' then due = tonumber(call('ZSCORE', K_due_soon, id) or call('ZSCORE', K_delayed, id) or nil) end
    local at = position_of(tenant(r.tenant), call('ZCOUNT', k_wait(r.tenant), '-inf', '(' .. r.order), r.est)
    local s = wait_s(at, due)
    position, wait = int(at), s and exact(s) or ''
  end
  r.id = id
  return { id, fields, call('GET', k_spec(id)) or '', call('HGETALL', k_out(id)), position, wait, last_event(r) }
end
