-- Who serves subscriptions. ARGV: 4… their numbers. Reply, for each: how many instances, or nothing if it is gone.
local reply, here = {}, {}
for i = 4, #ARGV do
  local Q = queue(ARGV[i])
  local consumers = call('HEXISTS', Q, 'served_at') == 1 and 0
  for _, instance in ipairs(consumers and call('SMEMBERS', Q .. ':c') or {}) do
    if here[instance] == nil then
      here[instance] = number(call('ZSCORE', P .. ':present', instance)) > mono
    end
    consumers = here[instance] and consumers + 1 or consumers
  end
  reply[#reply + 1] = consumers
end
return reply
