"""Can one Lua script append a batch: check the registry's version, drop known ids, write the log and every lane?

Asked besides: what does it cost the server per event, what does an id cost in memory, and does a full Redis
refuse the whole batch or leave half of it?
"""

import time
from typing import Any

import redis
from servers import NO_RETRY, redis_server

# KEYS: registry, log, ids of this generation, ids of the last one, then the lanes that the batch touches.
# ARGV: the caller's registry version, how long a generation lasts (ms, ids); for each event id, body, n, n lanes.
# Reply: "stale", or a pair (position, 1 when the id was known) for each event.
# An entry's id is `position-milliseconds`: positions count from 1, so a gap is seen by arithmetic.
# Two generations hold every id for at least one window, and the last `keep` ids at any rate; a known id answers with
# its first position.
APPEND = """
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 'stale' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = redis.call('HGET', KEYS[1], 'ids_since')
if since and now - since > tonumber(ARGV[2]) and redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[3]) then
  redis.call('UNLINK', KEYS[4])
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[4]) end
  since = false
end
if not since then redis.call('HSET', KEYS[1], 'ids_since', now) end
local head = tonumber(redis.call('HGET', KEYS[1], 'head') or 0)
local reply, at = {}, 4
while ARGV[at] do
  local id, body, matches = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local known = redis.call('HGET', KEYS[3], id) or redis.call('HGET', KEYS[4], id)
  if known then
    reply[#reply + 1] = {tonumber(known), 1}
  else
    head = head + 1
    local position = head
    redis.call('XADD', KEYS[2], string.format('%d-%d', head, now), 'e', body)
    for i = 1, matches do
      redis.call('XADD', KEYS[4 + ARGV[at + 2 + i]], '*', 'p', position, 'e', body)
    end
    redis.call('HSET', KEYS[3], id, position)
    reply[#reply + 1] = {position, 0}
  end
  at = at + 3 + matches
end
redis.call('HSET', KEYS[1], 'head', head)
return reply
"""
FIXED = ["{ns}:registry", "{ns}:log", "{ns}:ids", "{ns}:ids:old"]
BODY = b"x" * 300


def append(
    client: Any, ids: list[str], lanes: list[str], version: int = 1, window: int = 120_000, keep: int = 1
) -> Any:
    """Run the script for these ids, each into every lane."""
    numbers = [str(n) for n in range(1, len(lanes) + 1)]
    events = [argument for i in ids for argument in (i, BODY, len(lanes), *numbers)]
    return client.evalsha(append.sha, len(FIXED) + len(lanes), *FIXED, *lanes, version, window, keep, *events)  # type: ignore[attr-defined]


def cost_per_event(client: Any, lanes: list[str], total: int = 20_000, batch: int = 100) -> float:
    """Server microseconds for one event, fsync left out (it comes after the command)."""
    client.config_resetstat()
    for start in range(0, total, batch):
        append(client, [f"{len(lanes)}-{i:032}" for i in range(start, start + batch)], lanes)
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec"]) / total


def main() -> None:
    with redis_server() as server:
        client: Any = redis.Redis(port=server.port, retry=NO_RETRY)
        append.sha = client.script_load(APPEND)  # type: ignore[attr-defined]
        client.hset("{ns}:registry", "version", 1)
        lanes = ["{ns}:q:a:n", "{ns}:q:b:u"]

        first = append(client, ["id-1", "id-2", "id-1"], lanes)
        assert [flag for _, flag in first] == [0, 0, 1] and first[2][0] == first[0][0], (
            "a known id answers its position"
        )
        assert append(client, ["id-3"], lanes, version=2) == b"stale"
        assert client.xlen("{ns}:log") == 2 == client.xlen(lanes[0]), "a stale registry must write nothing"

        server.crash_and_restart()
        append.sha = client.script_load(APPEND)  # type: ignore[attr-defined]
        assert append(client, ["id-2"], lanes)[0][1] == 1, "the ids survive kill -9"
        time.sleep(0.05)
        assert append(client, ["id-2"], lanes, window=20)[0][1] == 1, "one generation later it is still known"
        time.sleep(0.05)
        assert append(client, ["id-2"], lanes, window=20, keep=1)[0][1] == 1, (
            "still among the last ids: kept however old"
        )
        assert append(client, ["id-2"], lanes, window=20, keep=0)[0][1] == 0, "two generations later it is new"

        costs = {n: cost_per_event(client, [f"{{ns}}:q:{n}:{i}" for i in range(n)]) for n in (0, 1, 10)}
        per_id = client.memory_usage("{ns}:ids") / client.hlen("{ns}:ids")

        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2_000_000)
        before, refused = client.xlen("{ns}:log"), 0
        for n in range(100):
            try:
                append(client, [f"full-{n}-{i}" for i in range(200)], ["{ns}:q:full"])
            except redis.exceptions.OutOfMemoryError:
                refused += 1
        assert refused > 0
        assert client.xlen("{ns}:log") - before == client.xlen("{ns}:q:full") == (100 - refused) * 200, "no half batch"
        print(
            f"redis {client.info()['redis_version']}: server cost per event by matches "
            f"{ {n: round(us, 1) for n, us in costs.items()} } us in batches of 100; {per_id:.0f} bytes an id; "
            f"full memory refused {refused} whole batches, none by half; a stale registry wrote nothing"
        )


if __name__ == "__main__":
    main()
