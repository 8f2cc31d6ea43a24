#!lua flags=allow-oom
-- Extends the leases of a group, and publishes its measurements. Returns the sessions that the group has lost.
local function run(ARGV)
  local a = read.session_renewal(ARGV, 1)
  local ends, lost = int(meta('lease_clock') + tonumber(a.lease_ms)), {}
  for i = 1 + width.session_renewal, #ARGV, 2 do
    local stored = call('HMGET', S.key.session(ARGV[i]), 'token', 'group')
    if stored[1] == ARGV[i + 1] then
      call('ZADD', S.session_leases, ends, ARGV[i])
    else
      lost[#lost + 1] = ARGV[i]
      if stored[2] ~= a.group then call('SREM', S.key.group_sessions(a.group), ARGV[i]) end
    end
  end
  call('PEXPIRE', S.key.session_inbox(a.nonce), S.INBOX_MS)
  local measured = { a.lag_ms, a.full, a.multiplier, a.room, a.prefill, a.decode, a.rates, a.batches, ends }
  call('HSET', S.session_groups, a.group, table.concat(measured, ' '))
  return lost
end
