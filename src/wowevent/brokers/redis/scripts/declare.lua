-- Make a subscription known, or renew it. ARGV: 4 id, 5 declaration, 6 instance if it is a live one, else empty;
-- 7 where it begins: "new", or the first position; 8 since when (ms), or empty; 9 "1" if a new one has
-- lost what it had in another log. Reply: number, whether it is new.
local id, spec, instance, first = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local num = call('HGET', P .. ':num', id)
if num then
  if call('HGET', P .. ':subs', num) ~= spec then
    call('HSET', P .. ':subs', num, spec)
    changed(num)
  end
  if instance == '' and call('HEXISTS', queue(num), 'served_at') == 0 then -- evicted, or deleted: its next fetch is told
    call('HSET', queue(num), 'served_at', score(now), 'lost', -1)
  end
  return {num, 0}
end
local state = call('HMGET', S, 'head', 'trimmed')
local head, trimmed = number(state[1]), number(state[2])
if first ~= 'new' then
  first = first == 'first' and trimmed + 1 or tonumber(first)
  if first > head + 1 then
    return redis.error_reply('LOST -1')
  elseif first <= trimmed then
    return redis.error_reply('LOST ' .. trimmed + 1 - first)
  end
end
num = whole(call('HINCRBY', S, 'subscriptions', 1))
call('HSET', P .. ':num', id, num)
call('HSET', P .. ':subs', num, spec)
if instance == '' then
  call('HSET', queue(num), 'served_at', score(now), 'lost', ARGV[9] == '1' and -1 or 0)
  if first ~= 'new' and first <= head then
    call('HSET', queue(num), 'next', first, 'upto', head, 'since', ARGV[8])
  end
else
  call('SADD', P .. ':live:' .. instance, num)
end
changed(num)
return {num, 1}
