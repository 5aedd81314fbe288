-- Keep the log within its limits. ARGV: 4 most milliseconds of age, 5 bytes, 6 events, each empty for none; 7 for how
-- many milliseconds a subscription may be unserved. Age and bytes take what is unread, too, and it is counted; the count
-- takes what every subscription has left behind. Reply: whether there may be more to do.
local LOG = P .. ':log'
local state = call('HMGET', S, 'head', 'trimmed', 'bytes')
local head, trimmed, bytes = number(state[1]), number(state[2]), number(state[3])
local nums = call('HVALS', P .. ':num')
local age, most, count = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function floor() -- the oldest position that some subscription has to take from the log
  local least = head + 1
  for _, num in ipairs(nums) do
    local Q = queue(num)
    local function look(offset)
      offset = tonumber(offset)
      if offset and offset < least then
        least = offset
      end
    end
    look(call('HGET', Q, 'next'))
    for _, lane in ipairs({':u', ':n'}) do
      look(string.match(call('LINDEX', Q .. lane, 0) or '', '^%d+'))
    end
    for _, lane in ipairs({':ru', ':rn'}) do
      look(call('ZRANGE', Q .. lane, 0, 0, 'WITHSCORES')[2])
    end
  end
  return least
end

local soft = trimmed
if count and head - trimmed > count then
  soft = math.min(head - count, floor() - 1)
end
local hard, more = trimmed, false
local first, gone = trimmed, 0
for _, entry in ipairs(call('XRANGE', LOG, '-', '+', 'COUNT', 1000)) do
  local offset, at = string.match(entry[1], '(%d+)-(%d+)')
  offset = tonumber(offset)
  local old = age and tonumber(at) < now - age
  local large = most and bytes - gone > most
  if old or large then
    hard = offset
  elseif offset > soft then
    break
  end
  first, gone = offset, gone + #entry[2][2]
end
if first > trimmed then
  call('XTRIM', LOG, 'MINID', whole(first + 1))
  call('HSET', S, 'trimmed', whole(first), 'bytes', whole(bytes - gone))
  more = first - trimmed >= 1000
end
if hard > trimmed then
  for _, num in ipairs(nums) do
    local Q, gone = queue(num), 0
    for _, lane in ipairs({':u', ':n'}) do
      while true do
        local raw = call('LINDEX', Q .. lane, 0)
        if not raw or tonumber(string.match(raw, '^%d+')) > hard then
          break
        end
        call('LPOP', Q .. lane)
        gone = gone + 1
      end
    end
    for _, lane in ipairs({':ru', ':rn', ':s'}) do
      gone = gone + call('ZREMRANGEBYSCORE', Q .. lane, '-inf', whole(hard))
    end
    for _, offset in ipairs(call('ZRANGE', Q .. ':w', 0, -1)) do
      if tonumber(offset) <= hard then
        call('ZREM', Q .. ':w', offset)
        call('HDEL', Q .. ':we', offset)
        gone = gone + 1
      end
    end
    local from = tonumber(call('HGET', Q, 'next') or nil)
    if from and from <= hard then
      local upto = tonumber(call('HGET', Q, 'upto'))
      gone = gone + math.min(hard, upto) + 1 - from
      if hard >= upto then
        call('HDEL', Q, 'next', 'upto', 'since')
      else
        call('HSET', Q, 'next', whole(hard + 1))
      end
    end
    if gone > 0 then
      lost(Q, gone)
      wake(num, 1)
    end
  end
end
for _, num in ipairs(nums) do
  local Q = queue(num)
  local facts = call('HMGET', Q, 'served_at', 'lapsed')
  if facts[1] and facts[2] ~= '1' and now - facts[1] > ARGV[7] / 2 then
    local served = false
    for _, instance in ipairs(call('SMEMBERS', Q .. ':c')) do
      served = served or number(call('ZSCORE', P .. ':present', instance)) > mono
    end
    if served then -- noted, so that the time begins anew though whoever serves it is gone before it says so
      call('HSET', Q, 'served_at', score(now))
    elseif now - facts[1] > tonumber(ARGV[7]) then
      lost(Q, ready(Q) + call('ZCARD', Q .. ':w'))
      call('HSET', Q, 'lapsed', 1)
      call('HDEL', Q, 'next', 'upto', 'since')
      call('UNLINK', Q .. ':u', Q .. ':n', Q .. ':ru', Q .. ':rn', Q .. ':s', Q .. ':w', Q .. ':we')
      changed(num)
    end
  end
end
return more and 1 or 0
