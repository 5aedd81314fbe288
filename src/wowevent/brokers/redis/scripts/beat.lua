-- What each instance does once a second. ARGV: 4 instance, 5 "1" to say that it is here, 6 the last position that it
-- knows of, then the numbers of what it waits for. Reply: delayed events that are due, milliseconds until the next one
-- behind them (negative: there is none), the numbers that have something, 1 if others took it to be gone, and the ids of
-- delayed events that were due and that other hands than ours, as an eviction, took.
local me = ARGV[4]
local other = regressed(number(call('HGET', S, 'head')), tonumber(ARGV[6]))
if other then
  return other
end
local back = 0
if ARGV[5] == '1' then
  back = call('ZADD', P .. ':present', score(mono + 15000), me)
  for _, gone in ipairs(call('ZRANGEBYSCORE', P .. ':present', '-inf', score(mono))) do
    call('ZREM', P .. ':present', gone)
    for _, num in ipairs(call('SMEMBERS', P .. ':live:' .. gone)) do
      forget(num)
    end
    call('DEL', P .. ':live:' .. gone)
    for _, num in ipairs(call('HVALS', P .. ':num')) do
      if call('SISMEMBER', queue(num) .. ':c', gone) == 1 then
        leave(num, gone, now)
      end
    end
  end
end
local function mended(Q) -- other hands than ours, as an eviction, took when leases end, or when retries are due
  if call('EXISTS', Q .. ':d') == 0 then
    for _, token in ipairs(call('HKEYS', Q .. ':l')) do
      call('ZADD', Q .. ':d', score(mono + 30000), fetch_of(token))
    end
  end
  if call('EXISTS', Q .. ':w') == 0 then
    for _, offset in ipairs(call('HKEYS', Q .. ':we')) do
      call('ZADD', Q .. ':w', score(now), offset)
    end
  end
end
local events, taken = {}, {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. ':later', '-inf', score(now + NEAR), 'LIMIT', 0, 500)) do
  local body = call('HGET', P .. ':later:body', id)
  if body then
    events[#events + 1] = body
  else
    call('ZREM', P .. ':later', id)
    taken[#taken + 1] = id
  end
end
-- Not one of those above: one that cannot be read, or for which there is no room, would have the next beat come at once.
local later = call('ZRANGEBYSCORE', P .. ':later', '(' .. score(now + NEAR), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
local news = {}
for i = 7, #ARGV do
  local Q = queue(ARGV[i])
  mended(Q)
  tick(ARGV[i])
  if ready(Q) > 0 or call('EXISTS', Q) == 0 then
    news[#news + 1] = ARGV[i]
  end
end
return {events, later and whole(math.max(0, math.ceil(later - now))) or '-1', news, back, taken}
