-- What changed in the registry. ARGV: 4 the version that is known, 5 when something was last removed, as far as is known.
-- Reply: version, removals; then number, declaration, "1" if it lapsed, for each that is new, or for all after a removal.
local state = call('HMGET', S, 'version', 'removals')
local reply = {state[1], state[2] or '0'}
local known = reply[2] == ARGV[5] and '(' .. ARGV[4] or '-inf'
for _, num in ipairs(call('ZRANGEBYSCORE', P .. ':changed', known, '+inf')) do
  reply[#reply + 1] = num
  reply[#reply + 1] = call('HGET', P .. ':subs', num)
  reply[#reply + 1] = call('HGET', queue(num), 'lapsed') or '0'
end
return reply
