"""Can Redis hold a delayed publish, append it once when due, and pull it out on request?

A sorted set by due time holds the ids, a hash the bodies. Every process runs the same idempotent script at
the nearest due time; whoever comes first appends. Cancelling is a ZREM: it answers truly, because removal and
append exclude each other.
"""

import threading
import time
from typing import Any

import redis
from servers import NO_RETRY, redis_server

HOLD = """                                            -- ARGV: id, due in ms, body
redis.call('ZADD', '{ns}:later', ARGV[2], ARGV[1])
redis.call('HSET', '{ns}:later:body', ARGV[1], ARGV[3])
return 1
"""
RELEASE = """                                         -- appends what is due; reply: ms until the next, or -1
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', '{ns}:later', '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('XADD', '{ns}:log', '*', 'i', id, 'e', redis.call('HGET', '{ns}:later:body', id), 'due', now)
  redis.call('ZREM', '{ns}:later', id)
  redis.call('HDEL', '{ns}:later:body', id)
end
local nearest = redis.call('ZRANGE', '{ns}:later', 0, 0, 'WITHSCORES')
return nearest[2] and math.max(0, nearest[2] - now) or -1
"""
CANCEL = """
if redis.call('ZREM', '{ns}:later', ARGV[1]) == 0 then return 0 end
redis.call('HDEL', '{ns}:later:body', ARGV[1])
return 1
"""


def now_ms() -> int:
    return int(time.time() * 1000)


def releaser(port: int, stop: threading.Event) -> None:
    """One process's timer: sleeps until the nearest due time, at most 50 ms here, and runs the script."""
    client: Any = redis.Redis(port=port, retry=NO_RETRY)
    release = client.register_script(RELEASE)
    while not stop.is_set():
        wait = release()
        stop.wait(min(wait, 50) / 1000 if wait >= 0 else 0.05)


def main() -> None:
    with redis_server() as server:
        client: Any = redis.Redis(port=server.port, retry=NO_RETRY)
        hold, cancel = client.register_script(HOLD), client.register_script(CANCEL)
        start = now_ms()
        due = {f"id-{n}": start + 400 + n * 2 for n in range(200)}
        for name, at in due.items():
            hold(args=[name, at, "body"])
        server.crash_and_restart()
        assert client.zcard("{ns}:later") == 200, "they survive kill -9"

        assert cancel(args=["id-7"]) == 1 and cancel(args=["id-7"]) == 0, "cancelled once, and only once"
        assert client.xlen("{ns}:log") == 0, "nothing has left yet: the log has no trace of them"

        stop = threading.Event()
        racers = [threading.Thread(target=releaser, args=(server.port, stop)) for _ in range(4)]
        for racer in racers:
            racer.start()
        time.sleep(0.6)
        won = [name for name in due if name != "id-7" and cancel(args=[name])]  # cancels racing the releases
        time.sleep(0.6)
        stop.set()
        for racer in racers:
            racer.join()

        left = [fields[b"i"].decode() for _, fields in client.xrange("{ns}:log")]
        late = [int(f[b"due"]) - due[f[b"i"].decode()] for _, f in client.xrange("{ns}:log")]
        assert len(left) == len(set(left)), "four processes, each event once"
        assert set(left) | set(won) | {"id-7"} == set(due) and not set(left) & set(won), "left or cancelled, never both"
        assert min(late) >= 0 and client.hlen("{ns}:later:body") == 0
        print(
            f"redis {client.info()['redis_version']}: 200 held over kill -9; {len(left)} left once each "
            f"(4 processes racing), at most {max(late)} ms late; {len(won) + 1} cancelled, none of them left"
        )


if __name__ == "__main__":
    main()
