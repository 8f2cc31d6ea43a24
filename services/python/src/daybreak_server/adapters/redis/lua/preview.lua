#!lua flags=allow-oom
-- Overwrites a task's preview. A stale token writes nothing.
local function run(ARGV)
  local id, token, ttl_ms, value = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  local r = load_task(id)
  if not r or r.token ~= token then return STALE end
  call('SET', k_preview(id), value, 'PX', ttl_ms)
  return control(r)
end
