#!lua flags=allow-oom
-- Extends the leases of a group, and publishes what it has measured. Answers the sessions that it has lost.
local function run(ARGV)
  local a = read.session_renewal(ARGV, 1)
  local ends, lost = int(meta('lease_clock') + tonumber(a.lease_ms)), {}
  for i = 1 + width.session_renewal, #ARGV, 2 do
    if call('HGET', S.key.session(ARGV[i]), 'token') == ARGV[i + 1] then
      call('ZADD', S.session_leases, ends, ARGV[i])
    else
      lost[#lost + 1] = ARGV[i]
    end
  end
  call('PEXPIRE', S.key.session_inbox(a.nonce), S.INBOX_MS)
  local measured = { a.lag_ms, a.full, a.multiplier, a.room, a.prefill, a.decode, a.batches, ends }
  call('HSET', S.session_groups, a.group, table.concat(measured, ' '))
  return lost
end
