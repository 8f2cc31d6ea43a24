#!lua flags=allow-oom
-- The next task for each group. What one still holds (its last claim's answer was lost) goes back first.
-- ARGV: the terms, then three of each group, as `terms` and `claimant` say. Answers one item for each.
local function run(ARGV)
  local found, count = {}, (#ARGV - TERMS) / 3
  local common = terms(ARGV, count)
  for i = 1, count do
    local c = claimant(common, ARGV, TERMS + 3 * i - 2)
    release_held(c.group, 'claim_lost')
    found[i] = claim_next(c)
  end
  flush()
  return found
end
