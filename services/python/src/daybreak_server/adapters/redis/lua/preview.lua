#!lua flags=allow-oom
-- Replaces a task's preview. With a stale token it writes nothing.
local function run(ARGV)
  local a = read.preview(ARGV, 1)
  local r = load_task(a.task)
  if not r or r.token ~= a.token then return STALE end
  call('SET', k_preview(a.task), a.value, 'PX', a.ttl_ms)
  return control(r)
end
