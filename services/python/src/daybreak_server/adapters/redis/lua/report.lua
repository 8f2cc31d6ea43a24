#!lua flags=allow-oom
-- Appends events, updates the record and the checkpoint, extends the lease. A stale token writes nothing.
-- A report whose answer was lost is sent again, and what was written the first time is known by its number.
-- ARGV: id, token, lease ms, number of record fields, fields…, checkpoint key or '', step, then type, data, number …
local function run(ARGV)
  local id, token, lease_ms, pairs_n = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local r = load_task(id)
  if not r or r.token ~= token then return STALE end
  call('ZADD', K_leases, 'XX', int(meta('lease_clock') + lease_ms), id)
  local at = 5
  for _ = 1, pairs_n do
    set(r, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  local checkpoint, step = ARGV[at], ARGV[at + 1]
  local told = tonumber(r.told or '0')
  for i = at + 2, #ARGV, 3 do
    local number = tonumber(ARGV[i + 2])
    if number == 0 or number > told then
      emit(r, ARGV[i], ARGV[i + 1])
      if number > 0 then told = number end
    end
  end
  if told > 0 then set(r, 'told', int(told)) end
  if checkpoint ~= '' and call('HGET', k_out(id), 'ckpt') ~= checkpoint then
    call('HSET', k_out(id), 'ckpt', checkpoint, 'ckpt_step', step)
    set(r, 'ckpt', '1')
    set(r, 'ckpt_at', int(steady()))
    emit(r, 'checkpoint', '{"step":' .. step .. '}')
  end
  flush()
  return control(r)
end
