#!lua flags=allow-oom,no-writes
-- Returns a page of a tenant's tasks. It examines a bounded number of tasks, so a filtered page may be short.
-- ARGV: a ListPage of arguments.py, then the wanted states. Answers {the task after which the next page begins or '', tasks}.

local function run(ARGV)
  local a = read.list_page(ARGV, 1)
  local after, limit, newest = a.after, tonumber(a.limit), a.newest_first == '1'
  local wanted
  for i = width.list_page + 1, #ARGV do
    wanted = wanted or {}
    wanted[ARGV[i]] = true
  end
  local from = after ~= '' and '(' .. after or (newest and '+' or '-')
  local count = wanted and LIST_SCAN_MAX or limit + 1
  local ids
  if newest then
    ids = call('ZRANGE', k_index(a.tenant), from, '-', 'BYLEX', 'REV', 'LIMIT', 0, count)
  else
    ids = call('ZRANGE', k_index(a.tenant), from, '+', 'BYLEX', 'LIMIT', 0, count)
  end
  local page, last = {}, ''
  for _, id in ipairs(ids) do
    if #page == limit then return { last, page } end
    if not wanted or wanted[call('HGET', k_task(id), 'state')] then page[#page + 1] = show(id) end
    last = id
  end
  if wanted and #ids == LIST_SCAN_MAX then return { last, page } end
  return { '', page }
end
