-- Wall time in milliseconds, from the server: due times, deadlines and stamps agree between all callers.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
