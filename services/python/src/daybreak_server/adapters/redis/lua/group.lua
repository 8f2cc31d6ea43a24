#!lua flags=allow-oom
-- Groups: `register` (or refresh), `leave`, `drain`, `undrain`. ARGV: what, group, then for register: ttl in ms,
-- whether it is a fresh start, whether it drains by itself, milliseconds of a whole wake or '', wake as JSON,
-- and its fields by name and value. Answers whether the group is marked to drain, or -1 if there is none.

local function register(ARGV, group, key)
  if ARGV[4] == '1' then release_held(group, 'restarted') end
  flush()
  local before = call('HMGET', key, 'state', 'phase', 'task')
  local r = {}
  for i = 8, #ARGV, 2 do r[ARGV[i]] = ARGV[i + 1] end
  if before[3] and r.state == 'idle' then r.state = 'busy' end
  if before[1] == r.state and before[2] == r.phase then r.since = nil else r.since = r.since or NOW_TEXT end
  if ARGV[5] == '1' then r.drain = '1' end
  hflush(key, r)
  call('ZADD', K_groups, int(meta('lease_clock') + tonumber(ARGV[3])), group)
  call('ZREM', K_gone, group)
  if ARGV[6] ~= '' and r.state == 'idle' and before[1] ~= 'idle' and before[1] ~= 'busy' then
    call('HSET', K_meta, 'wake_ms', ARGV[6], 'wake', ARGV[7])
  end
end

local function leave(group, key)
  release_held(group, 'left')
  flush()
  call('DEL', key)
  call('ZREM', K_groups, group)
  call('ZREM', K_gone, group)
end

local function run(ARGV)
  local what, group = ARGV[1], ARGV[2]
  local key = k_group(group)
  if what == 'register' then
    register(ARGV, group, key)
  elseif what == 'leave' then
    leave(group, key)
  elseif call('EXISTS', key) == 0 then
    return -1
  elseif what == 'drain' then
    call('HSET', key, 'drain', '1')
  else
    call('HDEL', key, 'drain')
  end
  return call('HEXISTS', key, 'drain')
end
