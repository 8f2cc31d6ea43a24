#!lua flags=allow-oom
-- Appends events, updates the record and the checkpoint, and extends the lease. With a stale token it writes nothing.
-- Each event with a number is written once, even if the report is repeated because its answer was lost.
-- ARGV: see Report and ReportedEvent in arguments.py. Answers the control bits.
local function run(ARGV)
  local a, at = read.report(ARGV, 1), width.report + 1
  local r = load_task(a.task)
  if not r or r.token ~= a.token then return STALE end
  call('ZADD', K_leases, 'XX', int(meta('lease_clock') + tonumber(a.lease_ms)), a.task)
  for _ = 1, tonumber(a.field_count) do
    set(r, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  local last = tonumber(r.last_event_number or '0')
  for place = at, #ARGV, width.reported_event do
    local event = read.reported_event(ARGV, place)
    local number = tonumber(event.number)
    if number == 0 or number > last then
      emit(r, event.type, event.data)
      if number > 0 then last = number end
    end
  end
  if last > 0 then set(r, 'last_event_number', int(last)) end
  if a.checkpoint ~= '' and call('HGET', k_out(a.task), 'ckpt') ~= a.checkpoint then
    call('HSET', k_out(a.task), 'ckpt', a.checkpoint, 'ckpt_step', a.step)
    set(r, 'ckpt', '1')
    set(r, 'ckpt_at', int(steady()))
    emit(r, 'checkpoint', '{"step":' .. a.step .. '}')
  end
  flush()
  return control(r)
end
