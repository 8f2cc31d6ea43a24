-- include: clock common estimate
-- A task as it is now, for Python: {id, record, spec, out, position, wait, last event}.
local function show(id)
  local fields = redis.call('HGETALL', k_task(id))
  if #fields == 0 then return nil end
  local r = {}
  for i = 1, #fields, 2 do r[fields[i]] = fields[i + 1] end
  local place, wait = '', ''
  if r.state == 'queued' or r.state == 'delayed' then
    local due
    if r.state == 'delayed' then
      due = tonumber(redis.call('ZSCORE', K_soon, id) or redis.call('ZSCORE', K_delayed, id) or nil)
    end
    local at = position(r)
    local s = wait_s(at, due)
    place, wait = int(at), s and exact(s) or ''
  end
  local last = redis.call('XREVRANGE', k_ev(id), '+', '-', 'COUNT', 1)[1]
  return { id, fields, redis.call('GET', k_spec(id)) or '', redis.call('HGETALL', k_out(id)),
    place, wait, last and last[1] or r.qev }
end
