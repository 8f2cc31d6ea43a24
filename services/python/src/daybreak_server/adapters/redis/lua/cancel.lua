#!lua flags=allow-oom
-- include: clock common queue attempt show
-- Cancels: at once where a task waits, by a mark that its group reads where it runs, not at all where it ended.
local id, reason = ARGV[1], ARGV[2]
local r = load_task(id)
if not r then return false end
if not TERMINAL[r.state] and not r.cancel_at then
  r.cancel_at, r.cancel_reason = int(NOW), reason
  redis.call('HSET', k_task(id), 'cancel_at', r.cancel_at, 'cancel_reason', reason)
  if r.state ~= 'running' then
    leave_queue(id, r)
    finish_cancelled(id, r)
  end
end
return show(id)
