-- The wall time of the Redis server in milliseconds. All callers use it, so they agree on due times, deadlines and
-- timestamps.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
