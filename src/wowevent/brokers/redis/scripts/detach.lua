-- An instance leaves. ARGV: 4 instance, 5 "1" if it closes, then the numbers of what it serves.
for i = 6, #ARGV do
  leave(ARGV[i], ARGV[4], now)
end
if ARGV[5] == '1' then
  call('ZREM', P .. ':present', ARGV[4])
  for _, num in ipairs(call('SMEMBERS', P .. ':live:' .. ARGV[4])) do
    forget(num)
  end
  call('DEL', P .. ':live:' .. ARGV[4])
end
return 1
