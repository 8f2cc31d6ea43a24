#!lua flags=allow-oom,no-writes
-- include: common
-- A task's own events behind `after`. Before its first claim it has no stream of its own: its one event is in
-- the record. Answers {whether history behind `after` was trimmed, entries}.
local id, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function newer(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am > bm or (am == bm and as > bs)
end

if redis.call('EXISTS', k_ev(id)) == 0 then
  local qev = redis.call('HGET', k_task(id), 'qev')
  if not qev or (after ~= '' and not newer(qev, after)) then return { 0, {} } end
  local r = { pos = redis.call('HGET', k_task(id), 'pos') }
  return { 0, { { qev, { 'type', 'queued', 'attempt', '0', 'data', queued_data(r) } } } }
end
local trimmed = 0
local first = redis.call('XRANGE', k_ev(id), '-', '+', 'COUNT', 1)[1]
if first and (after == '' or newer(first[1], after)) then
  local info = redis.call('XINFO', 'STREAM', k_ev(id))
  for i = 1, #info, 2 do
    if info[i] == 'entries-added' and info[i + 1] > redis.call('XLEN', k_ev(id)) then trimmed = 1 end
  end
end
return { trimmed, redis.call('XRANGE', k_ev(id), after == '' and '-' or '(' .. after, '+', 'COUNT', limit) }
