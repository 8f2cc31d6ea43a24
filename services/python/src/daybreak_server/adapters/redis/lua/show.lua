#!lua flags=allow-oom,no-writes
-- Tasks by id; false for each that does not exist.
local function run(ARGV)
  local found = {}
  for i, id in ipairs(ARGV) do found[i] = show(id) or false end
  return found
end
