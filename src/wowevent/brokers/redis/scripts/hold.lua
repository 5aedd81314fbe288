-- Keep a delayed event outside the log. ARGV: 4 id, 5 due (ms), 6 event. Reply: what is known of the id, or nothing.
local known = call('HGET', P .. ':ids', ARGV[4]) or call('HGET', P .. ':ids:old', ARGV[4])
  or call('ZSCORE', P .. ':later', ARGV[4]) and '0'
if known then
  return known
end
call('HSET', P .. ':ids', ARGV[4], 0)
call('HSETNX', S, 'ids_since', score(now))
call('ZADD', P .. ':later', ARGV[5], ARGV[4])
call('HSET', P .. ':later:body', ARGV[4], ARGV[6])
return false
