-- Store and route a batch, or refuse all of it. ARGV: 4 version of the registry that it was routed by; 5 "due" for
-- delayed events whose moment has come, else empty; 6 how long a generation of ids lasts (ms), 7 and how many it holds;
-- 8 the last position that the caller knows of; 9 n; n times id, event; m; m times number, lane (u, n, or lost for a lapsed
-- one), whether to refer to the log, count, the places of its events in the batch; then place and topic of each fact.
-- Reply: for each event its position, negative if the id was known, 0 while held.
local state = call('HMGET', S, 'version', 'head', 'stored', 'ids_since', 'bytes')
if state[1] ~= ARGV[4] then
  return redis.error_reply('STALE the registry has changed')
end
local head, at = number(state[2]), whole(math.max(math.floor(now), number(state[3])))
local other = regressed(head, tonumber(ARGV[8]))
if other then
  return other
end
local IDS, OLD = P .. ':ids', P .. ':ids:old'
local since = state[4]
if since and now - since > tonumber(ARGV[6]) and call('HLEN', IDS) >= tonumber(ARGV[7]) then
  call('UNLINK', OLD)
  call('RENAME', IDS, OLD)
  since = false
end
if not since then
  call('HSET', S, 'ids_since', score(now))
end
local n, due = tonumber(ARGV[9]), ARGV[5] == 'due'
local ids = {}
for i = 1, n do
  ids[i] = ARGV[8 + 2 * i]
end
local young, old = call('HMGET', IDS, unpack(ids)), call('HMGET', OLD, unpack(ids))
local reply, here, known, bytes = {}, {}, {}, 0
for i = 1, n do
  local id, first = ids[i], young[i] or old[i]
  if due then -- whoever takes it out of the waiting ones appends it
    first = call('ZREM', P .. ':later', id) == 0 and (first or '0')
    call('HDEL', P .. ':later:body', id)
  end
  first = first or here[id]
  if first then
    reply[i] = -tonumber(first)
  else
    local body = ARGV[9 + 2 * i]
    head = head + 1
    call('XADD', P .. ':log', head .. '-' .. at, 'e', body)
    bytes = bytes + #body
    here[id] = head
    known[#known + 1] = id
    known[#known + 1] = head
    reply[i] = head
  end
end
if #known > 0 then
  in_chunks(known, 4000, function(...) call('HSET', IDS, ...) end)
  call('HSET', S, 'head', head, 'stored', at, 'bytes', number(state[5]) + bytes)
end
local from = 10 + 2 * n
for _ = 1, tonumber(ARGV[from]) do
  local num, lane, refer, count = ARGV[from + 1], ARGV[from + 2], ARGV[from + 3] == '1', tonumber(ARGV[from + 4])
  local facts = ' ' .. at .. ' ' .. lane .. (refer and '' or ' 0 0 0 0\n')
  local entries = {}
  for i = 1, count do
    local place = tonumber(ARGV[from + 4 + i])
    if reply[place] > 0 then
      entries[#entries + 1] = reply[place] .. facts .. (refer and '' or ARGV[9 + 2 * place])
    end
  end
  from = from + 4 + count
  if #entries > 0 then
    if lane == 'lost' then
      lost(queue(num), #entries)
    else
      in_chunks(entries, 4000, function(...) call('RPUSH', queue(num) .. ':' .. lane, ...) end)
      wake(num, 1)
    end
  end
end
for i = from + 1, #ARGV, 2 do
  local place, topic = tonumber(ARGV[i]), ARGV[i + 1]
  if reply[place] > 0 then
    call('ZADD', P .. ':facts', reply[place], topic)
    call('HSET', P .. ':facts:body', topic, at .. '\n' .. ARGV[9 + 2 * place])
  end
end
return reply
