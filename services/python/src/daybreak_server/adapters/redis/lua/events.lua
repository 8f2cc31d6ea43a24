#!lua flags=allow-oom,no-writes
-- A task's own events behind `after`. The first, `queued`, is not in its stream (which begins with its first
-- claim, or its end) but in the record. Answers {whether history behind `after` was trimmed, entries}.
local function newer(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am > bm or (am == bm and as > bs)
end

local function wanted(entry, after) return after == '' or newer(entry, after) end

local function run(ARGV)
  local id, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
  local first = call('XRANGE', k_ev(id), '-', '+', 'COUNT', 1)[1]
  if first and wanted(first[1], after) then
    local info = call('XINFO', 'STREAM', k_ev(id))
    for i = 1, #info, 2 do
      if info[i] == 'entries-added' and info[i + 1] > call('XLEN', k_ev(id)) then
        return { 1, call('XRANGE', k_ev(id), '-', '+', 'COUNT', limit) }
      end
    end
  end
  local entries = {}
  local queued = call('HMGET', k_task(id), 'qev', 'pos')
  if queued[1] and wanted(queued[1], after) then
    entries[1] = { queued[1], { 'type', 'queued', 'attempt', '0', 'data', queued_data(queued[2]) } }
  end
  if first and #entries < limit then
    local rest = call('XRANGE', k_ev(id), after == '' and '-' or '(' .. after, '+', 'COUNT', limit - #entries)
    for _, entry in ipairs(rest) do entries[#entries + 1] = entry end
  end
  return { 0, entries }
end
