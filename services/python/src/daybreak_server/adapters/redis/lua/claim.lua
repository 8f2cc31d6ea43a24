#!lua flags=allow-oom
-- The next task for each group. What one holds and does not know of (a claim's answer was lost) goes back first.
-- ARGV: the terms, then four of each group, as `terms` and `claimant` say. Answers one item for each.
local function run(ARGV)
  local found, count = {}, (#ARGV - TERMS) / CLAIMANT
  local common = terms(ARGV, count)
  for i = 1, count do
    local c = claimant(common, ARGV, TERMS + CLAIMANT * (i - 1) + 1)
    release_held(c.group, 'claim_lost', c.kept)
    found[i] = claim_next(c)
  end
  flush()
  return found
end
