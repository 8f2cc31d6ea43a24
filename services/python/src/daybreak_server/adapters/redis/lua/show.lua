#!lua flags=allow-oom,no-writes
-- Returns tasks by id, with false for each id that does not exist.
local function run(ARGV)
  local found = {}
  for i, id in ipairs(ARGV) do found[i] = show(id) or false end
  return found
end
