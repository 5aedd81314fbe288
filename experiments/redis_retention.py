"""Retention on Redis: is a trimmed gap always noticed, counted per subscription, and told once?

Streams forget silently: a read after a trimmed position just goes on with what is there. So the trimming
script writes down how far it went (`trimmed`) and how many each lane lost (`lost`); readers and fetches ask
these. A recreated log is noticed by its epoch. Asked besides: does `ping` give a head from which a follower
misses and repeats nothing?
"""

import threading
import time
from typing import Any

import redis
from servers import NO_RETRY, redis_server

# KEYS: log, marks, then for each lane: lane, its subscription's lost key.  ARGV: keep nothing before this id (MINID).
TRIM = """
local last = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[1], '-', 'COUNT', 1)[1]
if not last then return 0 end
redis.call('HSET', KEYS[2], 'trimmed', last[1])
for i = 3, #KEYS, 2 do
  local gone = redis.call('XTRIM', KEYS[i], 'MINID', ARGV[1])
  if gone > 0 then redis.call('INCRBY', KEYS[i + 1], gone) end
end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
"""
LOG, MARKS, LANE, LOST = "{ns}:log", "{ns}:marks", "{ns}:q:s:n", "{ns}:q:s:lost"


class PositionLost(Exception):
    """The position that was asked for is gone."""


def read(client: Any, epoch: str, after: str) -> list[Any]:
    """Entries after a position; the three commands ride in one transaction, so that no trim comes between."""
    now, trimmed, entries = (
        client.pipeline(transaction=True)
        .hget(MARKS, "epoch")
        .hget(MARKS, "trimmed")
        .xrange(LOG, "(" + after, "+")
        .execute()
    )
    if now != epoch or (trimmed and order(trimmed) > order(after)):
        raise PositionLost(after)
    return list(entries)


def order(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))


def loses(client: Any, epoch: str, after: str) -> bool:
    try:
        read(client, epoch, after)
    except PositionLost:
        return True
    return False


def follow_from_head(port: int) -> int:
    """While another thread publishes: take the head, follow from it, compare with what the log holds after it."""
    client: Any = redis.Redis(port=port, retry=NO_RETRY, decode_responses=True)
    stop = threading.Event()

    def publish() -> None:
        other: Any = redis.Redis(port=port, retry=NO_RETRY)
        while not stop.is_set():
            other.xadd(LOG, {"e": "x"})

    publisher = threading.Thread(target=publish)
    publisher.start()
    time.sleep(0.05)
    head = after = client.xinfo_stream(LOG)["last-generated-id"]
    seen: list[str] = []
    while len(seen) < 500:
        for _, entries in client.xread({LOG: after}, block=1000, count=100) or []:
            seen += [entry for entry, _ in entries]
            after = seen[-1]
    stop.set()
    publisher.join()
    assert seen == [entry for entry, _ in client.xrange(LOG, "(" + head, "+")][: len(seen)]
    return len(seen)


def main() -> None:
    with redis_server() as server:
        client: Any = redis.Redis(port=server.port, retry=NO_RETRY, decode_responses=True)
        client.hset(MARKS, "epoch", "e1")
        client.xgroup_create(LANE, "g", id="0", mkstream=True)
        ids = []
        for n in range(100):
            ids.append(client.xadd(LOG, {"e": n}))
            client.xadd(LANE, {"p": ids[-1]}, id=ids[-1])  # the lane entry bears the position of the log
        client.xreadgroup("g", "me", {LANE: ">"}, count=10)
        for token in ids[:10]:
            client.xack(LANE, "g", token)
            client.xdel(LANE, token)

        silent = client.xtrim("{ns}:other", minid="1-0")
        client.register_script(TRIM)(keys=[LOG, MARKS, LANE, LOST], args=[ids[40]])
        assert silent == 0 and client.xlen(LOG) == 60
        assert client.xrange(LOG, "(" + ids[5], "+")[0][0] == ids[40], "Redis itself says nothing of the gap"
        assert loses(client, "e1", ids[5]) and loses(client, "e1", ids[38]), "a gap is never silent"
        assert not loses(client, "e1", ids[39]), "the last one trimmed was read: no gap"
        assert loses(client, "e0", ids[50]), "a log of another epoch"

        fetch = client.pipeline(transaction=True).getdel(LOST).xreadgroup("g", "me", {LANE: ">"}, count=5)
        lost, [(_, entries)] = fetch.execute()
        assert (lost, entries[0][0]) == ("30", ids[40]), "unread ones that were dropped: 100 - 10 settled - 60 kept"
        lost, _ = client.pipeline(transaction=True).getdel(LOST).xreadgroup("g", "me", {LANE: ">"}, count=5).execute()
        assert lost is None, "told once"

        followed = follow_from_head(server.port)
        live = client.pubsub()
        live.subscribe("{ns}:live")
        live.get_message(timeout=1)
        length = client.xlen(LOG)
        assert client.publish("{ns}:live", "reply") == 1 and client.publish("{ns}:nobody", "reply") == 0
        assert live.get_message(timeout=1)["data"] == "reply" and client.xlen(LOG) == length
        print(
            f"redis {client.info()['redis_version']}: 60 kept, 30 unread counted as lost and told once; "
            f"gaps and a "
            f"foreign epoch raise; {followed} followed from the head under load without gap or repetition; "
            f"a reply by PUBLISH leaves the log alone and says how many heard it"
        )


if __name__ == "__main__":
    main()
