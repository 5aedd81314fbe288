"""Can one script decide a fetch: suspects alone first, one holder at a time, 8 urgent to 1 normal, a note when empty?

Asked besides: what does it cost the server per event beside a plain XREADGROUP, with its acks in the same pipeline?
"""

import time
from typing import Any

import redis
from servers import NO_RETRY, redis_server

# KEYS: suspects, urgent, normal, notes of who waits, holder.
# ARGV: consumer, limit, its channel, exclusive lease in ms or 0.
# Reply: "held" when another holds the subscription, else the entries of each lane, as XREADGROUP gives them.
FETCH = """
if ARGV[4] ~= '0' then
  local holder = redis.call('GET', KEYS[5])
  if holder and holder ~= ARGV[1] then return 'held' end
  redis.call('SET', KEYS[5], ARGV[1], 'PX', ARGV[4])
end
local function read(lane, count)
  local got = redis.call('XREADGROUP', 'GROUP', 'g', ARGV[1], 'COUNT', count, 'STREAMS', lane, '>')
  return got and got[1][2] or {}
end
if redis.call('XLEN', KEYS[1]) > 0 then
  local alone = read(KEYS[1], 1)
  if #alone > 0 then return {alone, {}, {}} end
end
local limit = tonumber(ARGV[2])
local fair = math.min(redis.call('XLEN', KEYS[3]), math.max(1, math.floor(limit / 9)))
local urgent = read(KEYS[2], math.max(1, limit - fair))
local normal = limit > #urgent and read(KEYS[3], limit - #urgent) or {}
if #urgent + #normal == 0 then redis.call('SADD', KEYS[4], ARGV[3]) end
return {{}, urgent, normal}
"""
SUSPECTS, URGENT, NORMAL = (f"{{ns}}:q:s:{lane}" for lane in "sun")
KEYS = [SUSPECTS, URGENT, NORMAL, "{ns}:q:s:waits", "{ns}:q:s:holder"]


def fill(client: Any, lane: str, count: int) -> None:
    """That many entries."""
    pipeline = client.pipeline(transaction=False)
    for n in range(count):
        pipeline.xadd(lane, {"e": b"x" * 300, "n": n})
    pipeline.execute()


def drain(client: Any, fetch: Any) -> int:
    """Everything, the acks of one batch in the pipeline of the next fetch, as a consumer does it."""
    done: list[tuple[str, list[bytes]]] = []
    total = 0
    while True:
        pipeline = client.pipeline(transaction=False)
        for lane, ids in done:
            pipeline.xack(lane, "g", *ids)
            pipeline.xdel(lane, *ids)
        pipeline.evalsha(fetch.sha, 5, *KEYS, "me", 100, "wake:me", 0)
        lanes = zip((SUSPECTS, URGENT, NORMAL), pipeline.execute()[-1], strict=True)
        done = [(lane, [entry for entry, _ in entries]) for lane, entries in lanes if entries]
        if not done:
            return total
        total += sum(len(ids) for _, ids in done)


def plain(client: Any) -> int:
    """The bare loop on one lane, for comparison."""
    ids: list[bytes] = []
    total = 0
    while True:
        pipeline = client.pipeline(transaction=False)
        if ids:
            pipeline.xack(NORMAL, "g", *ids)
            pipeline.xdel(NORMAL, *ids)
        pipeline.execute_command("XREADGROUP", "GROUP", "g", "me", "COUNT", 100, "STREAMS", NORMAL, ">")
        got = pipeline.execute()[-1]
        if not got:
            return total
        ids = [entry for entry, _ in got[0][1]]
        total += len(ids)


def cost(client: Any, how: Any) -> float:
    """Server microseconds per event for fetch and settle."""
    fill(client, NORMAL, 10_000)
    client.config_resetstat()
    assert how() == 10_000
    # the commands that a script calls are counted inside it; the ones it calls are left out here
    stats = client.info("commandstats")
    outer = ("evalsha", "xack", "xdel") if "cmdstat_evalsha" in stats else ("xreadgroup", "xack", "xdel")
    return float(sum(stats[f"cmdstat_{name}"]["usec"] for name in outer)) / 10_000


def main() -> None:
    with redis_server("--appendfsync", "everysec") as server:
        client: Any = redis.Redis(port=server.port, retry=NO_RETRY)
        fetch = client.register_script(FETCH)
        for lane in (SUSPECTS, URGENT, NORMAL):
            client.xgroup_create(lane, "g", id="0", mkstream=True)

        def run(consumer: str = "me", limit: int = 90, lease: int = 0) -> Any:
            return fetch(keys=KEYS, args=[consumer, limit, "wake:me", lease])

        assert run() == [[], [], []] and client.smembers(KEYS[3]) == {b"wake:me"}, "nothing there: a note is left"
        fill(client, NORMAL, 5000)
        fill(client, URGENT, 200)
        assert [len(lane) for lane in run()] == [0, 80, 10], "8 urgent to 1 normal while both wait"
        run()
        assert [len(lane) for lane in run()] == [0, 40, 50], "what urgent leaves free goes to normal"
        fill(client, URGENT, 1)
        assert [len(lane) for lane in run()] == [0, 1, 89], "an urgent one overtakes the backlog in the next fetch"
        fill(client, SUSPECTS, 2)
        assert [len(lane) for lane in run()] == [1, 0, 0], "a suspect comes alone"
        assert run("one", lease=100) != b"held" and run("two", lease=100) == b"held", "one holder"
        time.sleep(0.12)
        assert run("two", lease=100) != b"held", "until its lease ends"

        client.delete(SUSPECTS, URGENT, NORMAL, KEYS[4])
        for lane in (SUSPECTS, URGENT, NORMAL):
            client.xgroup_create(lane, "g", id="0", mkstream=True)
        bare = cost(client, lambda: plain(client))
        ours = cost(client, lambda: drain(client, fetch))
        print(
            f"redis {client.info()['redis_version']}: suspects alone, 80 urgent to 10 normal, one holder; fetch and "
            f"settle cost the server {ours:.1f} us an event (a bare XREADGROUP, XACK, XDEL: {bare:.1f} us)"
        )


if __name__ == "__main__":
    main()
