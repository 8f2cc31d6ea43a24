#!lua flags=allow-oom,no-writes
-- A page of a tenant's tasks. Looks at a bounded number of them, so a filtered page may be short.
-- ARGV: tenant, after or '', limit, newest first, states… Answers {next or '', tasks}.

local function run(ARGV)
  local tenant, after, limit, newest = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
  local wanted
  for i = 5, #ARGV do
    wanted = wanted or {}
    wanted[ARGV[i]] = true
  end
  local from = after ~= '' and '(' .. after or (newest and '+' or '-')
  local ids
  if newest then
    ids = call('ZRANGE', k_index(tenant), from, '-', 'BYLEX', 'REV', 'LIMIT', 0, wanted and LIST_LOOK or limit + 1)
  else
    ids = call('ZRANGE', k_index(tenant), from, '+', 'BYLEX', 'LIMIT', 0, wanted and LIST_LOOK or limit + 1)
  end
  local page, last = {}, ''
  for i, id in ipairs(ids) do
    if #page == limit then return { last, page } end
    if not wanted or wanted[call('HGET', k_task(id), 'state')] then page[#page + 1] = show(id) end
    last = id
  end
  if wanted and #ids == LIST_LOOK then return { last, page } end
  return { '', page }
end
