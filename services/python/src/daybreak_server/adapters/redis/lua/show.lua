#!lua flags=allow-oom,no-writes
-- include: clock common show
-- Tasks by id; false for each that is not there.
local found = {}
for i, id in ipairs(ARGV) do found[i] = show(id) or false end
return found
