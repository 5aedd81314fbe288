-- A page of the facts. ARGV: 4 behind which position, 5 how many, 6 how many bytes, about. Reply: where the log ends, then
-- topic, position and entry of each; no entry if other hands than ours took it.
local reply, size = {number(call('HGET', S, 'head'))}, 0
local found = call('ZRANGEBYSCORE', P .. ':facts', '(' .. ARGV[4], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[5])
for i = 1, #found, 2 do
  local entry = call('HGET', P .. ':facts:body', found[i])
  reply[#reply + 1] = found[i]
  reply[#reply + 1] = found[i + 1]
  reply[#reply + 1] = entry
  size = size + #(entry or '')
  if size > tonumber(ARGV[6]) then
    break
  end
end
return reply
