#!lua flags=allow-oom
-- Groups: `register` (or refresh), `leave`, `drain`, `undrain`. Hosts: `close` and `open`. The pool: `failed` says why
-- a rank ended, `tell` what the operator reports.
-- ARGV: what, group, then for register: ttl in ms, whether it is a fresh start, whether it drains by itself,
-- milliseconds of a whole wake or '', wake as JSON, and its fields by name and value. Hosts are closed, and the pool's
-- words kept, for so many ms; `tell` ends with the milliseconds and phases of the whole wake before, if there was one.
-- Answers whether the group is marked to drain, or -1 if there is none.

local function on_cordoned_host(hosts)
  if call('EXISTS', K_cordoned) == 0 then return false end
  for _, host in ipairs(cjson.decode(hosts)) do
    local ends = call('ZSCORE', K_cordoned, host)
    if ends and tonumber(ends) > meta('lease_clock') then return true end
  end
end

local function register(ARGV, group, key)
  if ARGV[4] == '1' then release_held(group, 'restarted') end
  flush()
  local before = call('HMGET', key, 'state', 'phase', 'task')
  local r = {}
  for i = 8, #ARGV, 2 do r[ARGV[i]] = ARGV[i + 1] end
  if before[3] and r.state == 'idle' then r.state = 'busy' end
  if before[1] == r.state and before[2] == r.phase then r.since = nil else r.since = r.since or NOW_TEXT end
  if ARGV[5] == '1' or r.hosts and on_cordoned_host(r.hosts) then r.drain = '1' end
  hflush(key, r)
  call('ZADD', K_groups, int(meta('lease_clock') + tonumber(ARGV[3])), group)
  call('ZREM', K_gone, group)
  if r.state == 'idle' and before[1] ~= 'idle' and before[1] ~= 'busy' then
    call('DEL', K_failure)
    -- An operator sees the whole way from zero, and says what it took.
    if ARGV[6] ~= '' and call('EXISTS', K_operator_report) == 0 then
      call('HSET', K_meta, 'wake_ms', ARGV[6], 'wake', ARGV[7])
    end
  end
end

local function leave(group, key)
  release_held(group, 'left')
  flush()
  call('DEL', key)
  call('ZREM', K_groups, group)
  call('ZREM', K_gone, group)
end

local about_the_pool = {
  close = function(ARGV)
    local ends = int(meta('lease_clock') + tonumber(ARGV[2]))
    for i = 3, #ARGV do call('ZADD', K_cordoned, ends, ARGV[i]) end
  end,
  open = function(ARGV) call('ZREM', K_cordoned, unpack(ARGV, 2)) end,
  failed = function(ARGV)
    -- The ranks of a group end one after the other, and the first one knows why.
    if call('PTTL', K_failure) < tonumber(ARGV[2]) - FAILURE_FIRST_MS then
      call('SET', K_failure, ARGV[3], 'PX', ARGV[2])
    end
  end,
  tell = function(ARGV)
    call('SET', K_operator_report, ARGV[3], 'PX', ARGV[2])
    if ARGV[4] ~= '' then call('HSET', K_meta, 'wake_ms', ARGV[4], 'wake', ARGV[5]) end
  end,
}

local function run(ARGV)
  local what, group = ARGV[1], ARGV[2]
  if about_the_pool[what] then
    about_the_pool[what](ARGV)
    return 0
  end
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
