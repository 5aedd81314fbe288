-- What every script begins with. KEYS[1] names the namespace's log, `wowevent:{namespace}`; every other key is this one
-- with a suffix, so that all of them lie in one slot of a cluster.
-- ARGV: epoch, now, monotonic; milliseconds both, empty for the server's own clock.
--
--   :state     hash    epoch, head, trimmed, stored (the last one's time), bytes, version of the registry, counters
--   :log       stream  one entry an event, its id is `position-milliseconds`, field e: the event
--   :facts :facts:body zset    position -> topic; hash  topic -> milliseconds \n event: the newest of each topic under `_bus.`
--   :ids :ids:old      hash    event id -> position, or 0 while it is delayed; two generations
--   :later :later:body zset    due -> event id; hash event id -> event: delayed, outside the log
--   :subs      hash    number -> id and declaration, a line each;      :num  hash  subscription id -> number
--   :changed   zset    version -> number: what a process folds that knew the registry at an older version
--   :present   zset    until when -> instance;     :live:I  set  numbers of the live subscriptions of instance I
--   :r:W       stream  the live path of replies `_reply.W.…`, gone a minute after the last
--   :q:N       hash    subscription N: served_at, lapsed, lost, run, owner; told, told_lost: the last fetch that was told of a
--                      loss, and of how much; and next, upto, since while it takes in its past
--   :q:N:u :n          list    ready as published, urgent and other
--   :q:N:ru :rn        zset    position -> ready again, or of the past
--   :q:N:s             zset    position -> ready again, a suspect
--   :q:N:w :we         zset    due -> position; hash position -> entry: a delayed retry
--   :q:N:l             hash    token -> entry: leased
--   :q:N:b             hash    fetch -> how many of its entries are leased; a token is `fetch.position`
--   :q:N:d             zset    end of the lease -> fetch, or token for one that was extended
--   :q:N:c :f          set     instances that serve it, that wait for it
--   :q:N:dead          stream  dead letters
--
-- An entry is one line of facts and the event's bytes behind it; or, where many subscriptions got the event, the first
-- three facts alone, and the event is taken from the log:
--   position milliseconds lane failures crashes redelivered length-of-attempts \n attempts event
local P = KEYS[1]
local S = P .. ':state'
local call = redis.call
local now, mono
if ARGV[2] == '' then
  local time = call('TIME')
  now = time[1] * 1000 + time[2] / 1000
  mono = now
else
  now, mono = tonumber(ARGV[2]), tonumber(ARGV[3])
end
local NEAR = 0.5 -- milliseconds: due is what is due so soon

-- A server that came back without its last writes would give positions a second time. Whoever knows a later one than the
-- log's last makes an epoch of the log that is there: then every position of before is one of another log.
local function regressed(head, known)
  if head >= known then
    return false
  end
  call('HSET', S, 'epoch', ARGV[1] .. '.' .. head)
  return redis.error_reply('EPOCH this log lost its end')
end

local function number(value) -- of a stored one that may be missing
  return tonumber(value or 0) or 0
end

local function score(value) -- as text that loses no milliseconds
  return string.format('%.3f', value)
end

local function whole(value)
  return string.format('%.0f', value)
end

local function queue(num)
  return P .. ':q:' .. num
end

local function in_chunks(list, size, act)
  for first = 1, #list, size do
    act(unpack(list, first, math.min(first + size - 1, #list)))
  end
end

local function parse(raw)
  local offset, at, lane, failures, crashes, redelivered, length, from =
    string.match(raw, '^(%d+) (%d+) (%a) (%d+) (%d+) (%d) (%d+)\n()')
  return {
    offset = offset,
    at = at,
    lane = lane,
    failures = tonumber(failures),
    crashes = tonumber(crashes),
    redelivered = redelivered,
    attempts = string.sub(raw, from, from + length - 1),
    body = string.sub(raw, from + length),
  }
end

local function build(entry)
  return table.concat({
    entry.offset, ' ', entry.at, ' ', entry.lane, ' ', entry.failures, ' ', entry.crashes, ' ', entry.redelivered, ' ',
    #entry.attempts, '\n', entry.attempts, entry.body,
  })
end

-- The entry with its event, or nil if that is gone from the log.
local function full(raw)
  if string.find(raw, '\n', 1, true) then
    return raw
  end
  local offset = string.match(raw, '^%d+')
  local found = call('XRANGE', P .. ':log', offset, offset)[1]
  return found and raw .. ' 0 0 0 0\n' .. found[2][2]
end

local function failed(entry, error) -- `error` is JSON text
  entry.failures = entry.failures + 1
  entry.attempts = entry.attempts .. (entry.attempts == '' and '' or ',')
    .. string.format('{"number":%d,"time":%.6f,"error":', entry.failures + entry.crashes, now / 1000) .. error .. '}'
end

local function crashed(entry)
  entry.crashes = entry.crashes + 1
  entry.attempts = entry.attempts .. (entry.attempts == '' and '' or ',')
    .. string.format('{"number":%d,"time":%.6f,"error":"the lease ended unsettled"}',
      entry.failures + entry.crashes, now / 1000)
end

local function give_back(Q, entry)
  local lane = entry.crashes > 0 and ':s' or ':r' .. entry.lane
  call('ZADD', Q .. lane, entry.offset, build(entry))
end

local function wake(num, most) -- instances that wait for it; those that are gone do not count
  local waits = queue(num) .. ':f'
  while most > 0 do
    local instance = call('SPOP', waits)
    if not instance then
      return
    end
    if call('PUBLISH', P .. ':wake:' .. instance, num) > 0 then
      most = most - 1
    end
  end
end

local function fetch_of(token)
  return string.match(token, '^%d+%.%d+') or token
end

local function tokens_of(Q, fetch)
  local found, begin = {}, fetch .. '.'
  for _, token in ipairs(call('HKEYS', Q .. ':l')) do
    if string.sub(token, 1, #begin) == begin then
      found[#found + 1] = token
    end
  end
  return found
end

local function let_go(Q, fetch, count) -- so many of a fetch are not leased any more; with the last its lease is over
  local left = call('HINCRBY', Q .. ':b', fetch, -count)
  if left < 0 then -- other hands than ours took the count
    left = #tokens_of(Q, fetch)
    call('HSET', Q .. ':b', fetch, left)
  end
  if left <= 0 then
    call('HDEL', Q .. ':b', fetch)
    call('ZREM', Q .. ':d', fetch)
  end
end

local function lost(Q, count) -- so many events do not come; that is told, as nothing more exact than what was lost before
  if number(call('HGET', Q, 'lost')) >= 0 then
    call('HINCRBY', Q, 'lost', count)
  end
end

local function there(Q, raw)
  if not raw then
    lost(Q, 1)
  end
  return raw
end

local function take_back(Q, token) -- the entry of a lease that is over
  local raw = there(Q, call('HGET', Q .. ':l', token))
  local entry = raw and parse(raw)
  call('HDEL', Q .. ':l', token)
  call('ZREM', Q .. ':d', token)
  let_go(Q, fetch_of(token), 1)
  return entry
end

-- Take in what is due by now: delayed retries, and leases that ended.
local function tick(num)
  local Q = queue(num)
  for _, offset in ipairs(call('ZRANGEBYSCORE', Q .. ':w', '-inf', score(now + NEAR), 'LIMIT', 0, 500)) do
    local raw = there(Q, call('HGET', Q .. ':we', offset))
    call('ZREM', Q .. ':w', offset)
    call('HDEL', Q .. ':we', offset)
    if raw then
      give_back(Q, parse(raw))
    end
  end
  for _, over in ipairs(call('ZRANGEBYSCORE', Q .. ':d', '-inf', score(mono + NEAR), 'LIMIT', 0, 500)) do
    local whole_fetch = fetch_of(over) == over
    local tokens = whole_fetch and tokens_of(Q, over) or {over}
    local missing = whole_fetch and number(call('HGET', Q .. ':b', over)) - #tokens or 0
    if missing > 0 then
      lost(Q, missing)
      let_go(Q, over, missing)
    end
    for _, token in ipairs(tokens) do
      if not (whole_fetch and call('ZSCORE', Q .. ':d', token)) then -- one that was extended has its own end
        local entry = take_back(Q, token)
        if entry then
          crashed(entry)
          give_back(Q, entry)
        end
      end
    end
    call('ZREM', Q .. ':d', over)
  end
end

local function ready(Q) -- how many could be leased now
  return call('LLEN', Q .. ':u') + call('LLEN', Q .. ':n')
    + call('ZCARD', Q .. ':ru') + call('ZCARD', Q .. ':rn') + call('ZCARD', Q .. ':s')
end

local function next_version()
  return call('HINCRBY', S, 'version', 1)
end

local function changed(num) -- whoever cached the registry folds this one again
  call('ZADD', P .. ':changed', next_version(), num)
end

local function leave(num, instance, at)
  local Q = queue(num)
  if call('SREM', Q .. ':c', instance) == 1 and call('HEXISTS', Q, 'served_at') == 1 then
    call('HSET', Q, 'served_at', score(at))
  end
  if call('HGET', Q, 'owner') == instance then
    call('HDEL', Q, 'owner')
  end
  wake(num, 1000)
end

local function forget(num)
  local Q = queue(num)
  local id = string.match(call('HGET', P .. ':subs', num) or '', '^[^\n]*') -- the first line of a declaration
  wake(num, 1000)
  call('UNLINK', Q, Q .. ':u', Q .. ':n', Q .. ':ru', Q .. ':rn', Q .. ':s', Q .. ':w', Q .. ':we', Q .. ':l', Q .. ':b', Q .. ':d',
    Q .. ':c', Q .. ':f', Q .. ':dead')
  call('HDEL', P .. ':subs', num)
  call('HDEL', P .. ':num', id)
  call('ZREM', P .. ':changed', num)
  call('HSET', S, 'removals', next_version())
end
