-- What a new subscription takes in of its past, a piece. ARGV: 4 number, 5 where the piece begins, 6 where the next one
-- does, or empty behind the last; then position, milliseconds, lane of each that it wants. Reply: 1, or 0 if another
-- instance was faster.
local Q = queue(ARGV[4])
if call('HGET', Q, 'next') ~= ARGV[5] then
  return 0
end
for i = 7, #ARGV, 3 do
  call('ZADD', Q .. ':r' .. ARGV[i + 2], ARGV[i], ARGV[i] .. ' ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2])
end
if ARGV[6] == '' then
  call('HDEL', Q, 'next', 'upto', 'since')
else
  call('HSET', Q, 'next', ARGV[6])
end
wake(ARGV[4], 1)
return 1
