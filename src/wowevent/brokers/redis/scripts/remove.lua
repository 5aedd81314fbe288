-- Forget a subscription. ARGV: 4 id. Reply: its number, or nothing.
local num = call('HGET', P .. ':num', ARGV[4])
if num then
  forget(num)
end
return num
