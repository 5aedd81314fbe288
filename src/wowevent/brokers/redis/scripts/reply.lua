-- The live path. ARGV: 4 version, then topic's second word, id and event of each. Reply: where the log ends.
local state = call('HMGET', S, 'version', 'head')
if state[1] ~= ARGV[4] then
  return redis.error_reply('STALE the registry has changed')
end
for i = 5, #ARGV, 3 do
  local stream = P .. ':r:' .. ARGV[i]
  call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'e', ARGV[i + 2])
  call('EXPIRE', stream, 60)
end
return number(state[2])
