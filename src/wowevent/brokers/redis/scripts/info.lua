-- Numbers of subscriptions. ARGV: 4… their numbers. Reply, for each: served_at (nothing if it is gone), lapsed, lost,
-- ready, leased, delayed, dead, consumers, when the oldest unsettled one was stored (ms), next, upto, since.
local reply = {}
for i = 4, #ARGV do
  local num = ARGV[i]
  local Q = queue(num)
  tick(num)
  local facts = call('HMGET', Q, 'served_at', 'lapsed', 'lost', 'next', 'upto', 'since')
  local consumers, oldest = 0, false
  for _, instance in ipairs(call('SMEMBERS', Q .. ':c')) do
    if number(call('ZSCORE', P .. ':present', instance)) > mono then
      consumers = consumers + 1
    end
  end
  local function look(raw) -- time grows with position
    local at = raw and tonumber(string.match(raw, '^%d+ (%d+)'))
    if at and (not oldest or at < oldest) then
      oldest = at
    end
  end
  look(call('LINDEX', Q .. ':u', 0))
  look(call('LINDEX', Q .. ':n', 0))
  for _, lane in ipairs({':ru', ':rn', ':s'}) do
    look(call('ZRANGE', Q .. lane, 0, 0)[1])
  end
  local first, token
  for _, each in ipairs(call('HKEYS', Q .. ':l')) do
    local offset = tonumber(string.match(each, '%d+$'))
    if not first or offset < first then
      first, token = offset, each
    end
  end
  look(token and call('HGET', Q .. ':l', token))
  first = nil
  for _, offset in ipairs(call('ZRANGE', Q .. ':w', 0, -1)) do
    first = first and math.min(first, tonumber(offset)) or tonumber(offset)
  end
  look(first and call('HGET', Q .. ':we', whole(first)))
  reply[#reply + 1] = {
    facts[1], facts[2], facts[3], ready(Q), call('HLEN', Q .. ':l'), call('ZCARD', Q .. ':w'), call('XLEN', Q .. ':dead'),
    consumers, oldest and whole(oldest), facts[4], facts[5], facts[6],
  }
end
return reply
