#!lua flags=allow-oom
-- Cancels a task: a waiting one at once, a running one by a mark that its group reads. An ended task does not change.
-- Returns the task as it is afterwards, or false if the task does not exist.
local function run(ARGV)
  local a = read.cancellation(ARGV, 1)
  local r = load_task(a.task)
  if not r then return false end
  if not TERMINAL[r.state] and not r.cancel_at then
    set(r, 'cancel_at', NOW_TEXT)
    set(r, 'cancel_reason', a.reason)
    if r.state == 'running' then
      set(r, 'cancel_step', r.step or '0')
      report_change(r, 'cancelling', '{"reason":' .. cjson.encode(a.reason) .. '}')
    else
      leave_queue(r)
      finish_cancelled(r)
    end
    flush()
  end
  return show(a.task)
end
