-- Join the log, which is made if there is none. ARGV[4]: the epoch of a new one. Reply: epoch, instance, time.
if call('HSETNX', S, 'epoch', ARGV[4]) == 1 then
  call('HSET', S, 'layout', 1, 'head', 0, 'trimmed', 0, 'version', 0)
end
local instance = call('HINCRBY', S, 'instances', 1)
call('ZADD', P .. ':present', score(mono + 15000), instance)
return {call('HGET', S, 'epoch'), instance, call('HGET', S, 'layout')}
