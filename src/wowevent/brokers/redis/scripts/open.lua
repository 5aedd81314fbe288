-- Join the log, which is made if there is none. ARGV[4]: the epoch of a new one. Reply: epoch, instance, time.
if call('HSETNX', S, 'epoch', ARGV[4]) == 1 then
  -- Instances count from somewhere else in each log: a token of an emptied one must not fit the next.
  call('HSET', S, 'layout', 1, 'head', 0, 'trimmed', 0, 'version', 0, 'instances', whole(tonumber(ARGV[4], 16)))
end
local instance = call('HINCRBY', S, 'instances', 1)
call('ZADD', P .. ':present', score(mono + 15000), instance)
return {call('HGET', S, 'epoch'), instance, call('HGET', S, 'layout')}
