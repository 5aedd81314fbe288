-- Lease what is ready. ARGV: 4 number, 5 instance, 6 the fetch, with which its tokens begin, 7 limit, 8 lease (ms), 9 "1" to be
-- served from here on, 10 "1" for an exclusive one, 11 "1" to leave a note if there is nothing; 12… fetches of this
-- instance whose answers got lost: what they leased is given back. Reply: entries, milliseconds until something is due
-- (negative: nothing will be), and next, upto, since while it takes in its past.
local num, me, limit = ARGV[4], ARGV[5], tonumber(ARGV[7])
local Q = queue(num)
local facts = call('HMGET', Q, 'served_at', 'lapsed', 'lost', 'run', 'owner', 'next', 'upto', 'since')
if not facts[1] then
  return redis.error_reply('GONE no such subscription')
end
if ARGV[9] == '1' then
  call('SADD', Q .. ':c', me)
end
call('SREM', Q .. ':f', me) -- it looks now; a note of before would be another's wake-up lost
for i = 12, #ARGV do
  local told = call('HMGET', Q, 'told', 'told_lost')
  if told[1] == ARGV[i] then -- of a loss: nobody heard it
    facts[3] = (told[2] == '-1' or number(facts[3]) < 0) and '-1' or whole(number(facts[3]) + told[2])
    call('HSET', Q, 'lost', facts[3])
    call('HDEL', Q, 'told', 'told_lost')
  end
  for _, token in ipairs(tokens_of(Q, ARGV[i])) do
    give_back(Q, take_back(Q, token))
  end
end
tick(num)

local function wait(least)
  if ARGV[11] == '1' then
    call('SADD', Q .. ':f', me)
  end
  for _, key in ipairs({':w', ':d'}) do
    local first = call('ZRANGE', Q .. key, 0, 0, 'WITHSCORES')[2]
    if first then
      local left = math.max(0, first - (key == ':w' and now or mono))
      least = least < 0 and left or math.min(least, left)
    end
  end
  return {{}, whole(math.ceil(least)), false}
end

if limit == 0 then
  return wait(-1)
end
if ARGV[10] == '1' then -- one instance at a time: the others wait until it is gone, and what it leased is over
  local owner = facts[5]
  if owner and owner ~= me and number(call('ZSCORE', P .. ':present', owner)) > mono then
    return wait(-1)
  end
  for _, token in ipairs(call('HKEYS', Q .. ':l')) do
    if string.match(token, '^%d+') ~= me then
      return wait(-1)
    end
  end
  if owner ~= me then
    call('HSET', Q, 'owner', me)
  end
end
if facts[2] == '1' or number(facts[3]) ~= 0 then
  local told = facts[3] or '0'
  told = told == '0' and '-1' or told -- a lapse that took nothing is one to be told, too
  call('HSET', Q, 'lost', 0, 'lapsed', 0, 'served_at', score(now), 'told', ARGV[6], 'told_lost', told)
  if facts[2] == '1' then
    changed(num)
  end
  return redis.error_reply('LOST ' .. (facts[3] or 0))
end

local function pop(lane, count) -- ready ones of a lane in the order of their positions
  local list, back, found = Q .. ':' .. lane, Q .. ':r' .. lane, {}
  while #found < count do
    local returned = call('ZRANGE', back, 0, 0, 'WITHSCORES')
    if not returned[1] then
      if not facts[6] then
        for _, raw in ipairs(call('LPOP', list, count - #found) or {}) do
          found[#found + 1] = raw
        end
      end
      return found
    end
    local published = not facts[6] and call('LINDEX', list, 0)
    if published and tonumber(string.match(published, '^%d+')) < tonumber(returned[2]) then
      found[#found + 1] = call('LPOP', list)
    else
      call('ZREM', back, returned[1])
      found[#found + 1] = returned[1]
    end
  end
  return found
end

local function mixed() -- eight urgent ones, then one other
  local urgent = call('ZCARD', Q .. ':ru') + (facts[6] and 0 or call('LLEN', Q .. ':u'))
  local before = number(facts[4])
  local run, first = before, {}
  if urgent == 0 then
    run = 0
    first = pop('n', limit)
  else
    local other = call('ZCARD', Q .. ':rn') + (facts[6] and 0 or call('LLEN', Q .. ':n'))
    local order = {}
    while #order < limit and urgent + other > 0 do
      if urgent > 0 and not (other > 0 and run >= 8) then
        run, urgent, order[#order + 1] = run + 1, urgent - 1, 'u'
      else
        run, other, order[#order + 1] = 0, other - 1, 'n'
      end
    end
    local lanes = {u = {}, n = {}}
    for _, lane in ipairs(order) do
      lanes[lane][#lanes[lane] + 1] = true
    end
    lanes = {u = pop('u', #lanes.u), n = pop('n', #lanes.n)}
    local at = {u = 0, n = 0}
    for place, lane in ipairs(order) do
      at[lane] = at[lane] + 1
      first[place] = lanes[lane][at[lane]]
    end
  end
  if run ~= before then
    call('HSET', Q, 'run', run)
  end
  return first
end

local suspect = call('ZPOPMIN', Q .. ':s')[1]
local entries, leased = {}, {}
for _, raw in ipairs(suspect and {suspect} or mixed()) do
  local entry = full(raw)
  if not entry then -- taken from the log
    lost(Q, 1)
  else
    local token = ARGV[6] .. '.' .. string.match(entry, '^%d+')
    entries[#entries + 1] = entry
    leased[#leased + 1] = token
    leased[#leased + 1] = entry
  end
end
local behind = facts[6] and {facts[6], facts[7], facts[8]} or false
if #entries == 0 then
  local answer = wait(-1)
  answer[3] = behind
  return answer
end
in_chunks(leased, 4000, function(...) call('HSET', Q .. ':l', ...) end)
call('HSET', Q .. ':b', ARGV[6], #entries)
call('ZADD', Q .. ':d', score(mono + ARGV[8]), ARGV[6])
if call('SCARD', Q .. ':f') > 0 and ready(Q) > 0 then -- one wake-up may stand for several events
  wake(num, 1)
end
return {entries, '-1', behind}
