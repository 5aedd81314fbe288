"""Lanes as lists and leases as a hash, instead of a stream with a consumer group: what does it cost the server?

Asked besides: can what comes back take its old place, and how should the ends of leases be kept?
"""

from typing import Any

import redis
from servers import NO_RETRY, redis_server

# KEYS: lane (list), what came back (sorted set by position), leases (hash), their ends (sorted set).
# ARGV: fetch, limit, until, "token" to keep an end for each token or "fetch" for all of them together.
FETCH = """
local back, found = redis.call('ZCARD', KEYS[2]), {}
if back == 0 then
  found = redis.call('LPOP', KEYS[1], ARGV[2]) or {}
else
  while #found < tonumber(ARGV[2]) do
    local returned = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
    local next = redis.call('LINDEX', KEYS[1], 0)
    if returned[1] and not (next and tonumber(string.match(next, '^%d+')) < tonumber(returned[2])) then
      redis.call('ZREM', KEYS[2], returned[1])
      found[#found + 1] = returned[1]
    elseif next then
      found[#found + 1] = redis.call('LPOP', KEYS[1])
    else
      break
    end
  end
end
local leased, ends = {}, {}
for _, entry in ipairs(found) do
  local token = ARGV[1] .. '.' .. string.match(entry, '^%d+')
  leased[#leased + 1] = token
  leased[#leased + 1] = entry
  ends[#ends + 1] = ARGV[3]
  ends[#ends + 1] = token
end
if #found > 0 then
  redis.call('HSET', KEYS[3], unpack(leased))
  if ARGV[4] == 'token' then
    redis.call('ZADD', KEYS[4], unpack(ends))
  else
    redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
  end
end
return found
"""
# ARGV: how the ends are kept, the fetch, its tokens.
ACK = """
local done = redis.call('HDEL', KEYS[3], unpack(ARGV, 3))
if ARGV[1] == 'token' then
  redis.call('ZREM', KEYS[4], unpack(ARGV, 3))
else
  redis.call('ZREM', KEYS[4], ARGV[2])
end
return done
"""
KEYS = ["{ns}:n", "{ns}:rn", "{ns}:l", "{ns}:d"]
BODY = "x" * 300
COUNT = 10_000


def fill(client: Any, count: int) -> None:
    """That many entries in the list."""
    pipeline = client.pipeline(transaction=False)
    for n in range(1, count + 1):
        pipeline.rpush(KEYS[0], f"{n} {BODY}")
    pipeline.execute()


def drain(client: Any, fetch: Any, ack: Any, kept: str) -> float:
    """Server microseconds an event for fetch and acknowledgement, 100 at a time."""
    fill(client, COUNT)
    client.config_resetstat()
    total = 0
    while found := fetch(keys=KEYS, args=[total, 100, 1_790_000_000_000 + total, kept]):
        tokens = [f"{total}.{entry.split(b' ')[0].decode()}" for entry in found]
        assert ack(keys=KEYS, args=[kept, total, *tokens]) == len(found)
        assert ack(keys=KEYS, args=[kept, total, tokens[0]]) == 0, "a late acknowledgement settles nothing"
        total += len(found)
    assert total == COUNT
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec"]) / COUNT


def main() -> None:
    with redis_server("--appendfsync", "everysec") as server:
        client: Any = redis.Redis(port=server.port, retry=NO_RETRY)
        fetch, ack = client.register_script(FETCH), client.register_script(ACK)

        fill(client, 6)
        first = fetch(keys=KEYS, args=["f", 3, 1, "fetch"])
        for entry in reversed(first):
            client.zadd(KEYS[1], {entry: int(entry.split(b" ")[0])})
        order = [int(entry.split(b" ")[0]) for entry in fetch(keys=KEYS, args=["g", 6, 1, "fetch"])]
        assert order == [1, 2, 3, 4, 5, 6], "what comes back takes its old place"
        client.flushall()

        costs = {kept: drain(client, fetch, ack, kept) for kept in ("token", "fetch", "token", "fetch")}
        print(
            f"redis {client.info()['redis_version']}: fetch and settlement cost the server {costs['fetch']:.1f} us "
            f"an event with one end of a lease for each fetch, {costs['token']:.1f} us with one for each token; what "
            "comes back takes its old place"
        )


if __name__ == "__main__":
    main()
