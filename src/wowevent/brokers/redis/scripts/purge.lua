-- Drop what is ready. ARGV[4]: the number. Reply: how many there were.
local Q = queue(ARGV[4])
if call('EXISTS', Q) == 0 then
  return redis.error_reply('GONE no such subscription')
end
tick(ARGV[4])
local count = ready(Q)
call('UNLINK', Q .. ':u', Q .. ':n', Q .. ':ru', Q .. ':rn', Q .. ':s')
call('HDEL', Q, 'next', 'upto', 'since')
return count
