#!lua flags=allow-oom
-- Cancels: at once where a task waits, by a mark that its group reads where it runs, not at all where it ended.
local function run(ARGV)
  local id, reason = ARGV[1], ARGV[2]
  local r = load_task(id)
  if not r then return false end
  if not TERMINAL[r.state] and not r.cancel_at then
    set(r, 'cancel_at', NOW_TEXT)
    set(r, 'cancel_reason', reason)
    if r.state ~= 'running' then
      leave_queue(r)
      finish_cancelled(r)
    end
    flush()
  end
  return show(id)
end
