#!lua
-- Opens a session, unless the pool is full or the tenant has too many. A repeated call returns the session as it is. When
-- `maxmemory` is reached, Redis refuses this script.
-- Answers {`session`, the session} or {`full`, why (`limit`, `lag`, `tenant_limit`), ms to wait before a retry, open
-- sessions (for `tenant_limit`: of the tenant, else of the pool)}.
local function run(ARGV)
  local a = read.session_opening(ARGV, 1)
  local key, of_tenant = S.key.session(a.session), S.key.tenant_sessions(a.tenant)
  if call('EXISTS', key) == 1 then return { 'session', S.show(a.session) } end
  local own = call('ZCARD', of_tenant)
  if own >= tonumber(a.max_per_tenant) then return { 'full', 'tenant_limit', int(S.retry_ms()), own } end
  local open = call('ZCARD', S.sessions)
  local why = open >= tonumber(a.max_sessions) and 'limit' or S.full() and 'lag'
  if why then
    add_total('sessions_refused:' .. why, 1)
    flush()
    return { 'full', why, int(S.retry_ms()), open }
  end
  call('HSET', key, 'tenant', a.tenant, 'source', a.source, 'target', a.target, 'requested_multiplier', a.multiplier, 'options', a.options,
    'client', a.client, 'timeout', a.timeout_ms, 'state', 'waiting', 'opened', NOW_TEXT, 'touched', NOW_TEXT,
    'received', '0', 'consumed', '0', 'multiplier', a.multiplier)
  if a.trace ~= '' then call('HSET', key, 'trace', a.trace) end
  call('ZADD', S.sessions, NOW_TEXT, a.session)
  call('ZADD', of_tenant, NOW_TEXT, a.session)
  call('HSET', S.session_tenants, a.session, a.tenant)
  call('ZADD', S.sessions_waiting, NOW_TEXT, a.session)
  S.touch(a.session, a.timeout_ms)
  S.wake(1)
  add_total('sessions_opened', 1)
  S.report({ id = a.session, tenant = a.tenant, trace = a.trace }, 'opened', '{}')
  want_groups(a.target_load)
  flush()
  return { 'session', S.show(a.session) }
end
