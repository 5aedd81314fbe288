-- Settle what is leased; a token whose lease has ended settles nothing. ARGV: 4 number, 5 "1" for an exclusive one,
-- 6 how many fetches are acknowledged from; for each fetch, count, tokens; then, for each of the others, one of
--   r, token, delay (ms), error as JSON or empty if none is charged, ""
--   x, token, lease (ms) from now, error as JSON or empty, ""
--   b, token, reason, error as JSON or empty, traceback
-- Reply: how many were settled.
local num, fetches = ARGV[4], tonumber(ARGV[6])
local Q = queue(num)
if call('EXISTS', Q) == 0 then
  return redis.error_reply('GONE no such subscription')
end
tick(num)
local done, at = 0, 7
for _ = 1, fetches do
  local fetch, count = ARGV[at], tonumber(ARGV[at + 1])
  local settled = 0
  for first = at + 2, at + 1 + count, 4000 do
    local last = math.min(first + 3999, at + 1 + count)
    settled = settled + call('HDEL', Q .. ':l', unpack(ARGV, first, last))
    call('ZREM', Q .. ':d', unpack(ARGV, first, last))
  end
  if settled > 0 then
    let_go(Q, fetch, settled)
  end
  done = done + settled
  at = at + 2 + count
end
local due = false
for i = at, #ARGV, 5 do
  local kind, token, error = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local raw = call('HGET', Q .. ':l', token)
  if raw then
    done = done + 1
    local entry = parse(raw)
    if error ~= '' then
      failed(entry, error)
    end
    if kind == 'x' then
      if error ~= '' then
        call('HSET', Q .. ':l', token, build(entry))
      end
      call('ZADD', Q .. ':d', score(mono + ARGV[i + 2]), token)
      due = true
    else
      call('HDEL', Q .. ':l', token)
      call('ZREM', Q .. ':d', token)
      let_go(Q, fetch_of(token), 1)
      if kind == 'b' then
        call('XADD', Q .. ':dead', '*', 'e', build(entry), 'r', ARGV[i + 2], 'x', error, 't', ARGV[i + 4], 'at', score(now))
      elseif tonumber(ARGV[i + 2]) > 0 then
        call('ZADD', Q .. ':w', score(now + ARGV[i + 2]), entry.offset)
        call('HSET', Q .. ':we', entry.offset, build(entry))
        due = true
      else
        give_back(Q, entry)
        wake(num, 1)
      end
    end
  end
end
if due then -- who waits has reckoned with another moment
  wake(num, 1000)
end
if ARGV[5] == '1' and call('HLEN', Q .. ':l') == 0 then
  wake(num, 1000)
end
return done
