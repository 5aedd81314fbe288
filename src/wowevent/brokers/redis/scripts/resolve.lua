-- Redeliver or discard dead letters. ARGV: 4…, three each: number, letter, "1" to redeliver. Reply: how many were there.
local done = 0
for i = 4, #ARGV, 3 do
  local num = ARGV[i]
  local Q = queue(num)
  local letter = call('XRANGE', Q .. ':dead', ARGV[i + 1], ARGV[i + 1])[1]
  if letter then
    if ARGV[i + 2] == '1' then
      local entry = parse(letter[2][2])
      entry.failures, entry.crashes, entry.redelivered, entry.attempts = 0, 0, '1', ''
      give_back(Q, entry)
      wake(num, 1)
    end
    call('XDEL', Q .. ':dead', ARGV[i + 1])
    done = done + 1
  end
end
return done
