#!lua flags=allow-oom
-- Claims the next task for each group. If the answer to an earlier claim was lost, the group has a task that it does not
-- know about. The script first releases that task.
-- ARGV: a Terms of arguments.py, then a Claimant for each group. Answers one item for each group.
local function run(ARGV)
  local terms, first = read.terms(ARGV, 1), width.terms + 1
  local want, replies = (#ARGV - width.terms) / width.claimant, {}
  for at = first, #ARGV, width.claimant do
    local c = read.claimant(ARGV, at)
    release_unknown(c.group, 'claim_lost', c.known)
    replies[#replies + 1] = claim_next(c, terms, want)
  end
  flush()
  return replies
end
