"""Does a token that names one entry make late settlements harmless, and do the counters travel with the entry?

An expired lease, a retry and a suspect are all the same step: the old entry is acked and deleted, and a new
one is added with its counters, in one script. So a late ack finds nothing; `settle` counts what was settled
and the rest were stale.
"""

import json
import time
from typing import Any

import redis
from servers import NO_RETRY, redis_server

LANE, SUSPECT, DUE, MARKS, DEAD = "{ns}:q:s:n", "{ns}:q:s:suspect", "{ns}:q:s:due", "{ns}:q:s:marks", "{ns}:dead"
GROUP = "g"  # the same name everywhere, so that one call can read many subscriptions

# What `state` holds: failures, crashes, attempts = [[number, time in ms, error], ...]
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function take(lane, id)                       -- nil when the token is stale
  if redis.call('XACK', lane, 'g', id) == 0 then return nil end
  local fields = redis.call('XRANGE', lane, id, id)[1][2]
  redis.call('XDEL', lane, id)
  local entry = {e = fields[2], state = cjson.decode(fields[4])}
  local mark = redis.call('HGET', '{ns}:q:s:marks', id)
  if mark then
    redis.call('HDEL', '{ns}:q:s:marks', id)
    entry.state = cjson.decode(mark)
  end
  return entry
end
local function note(state, kind, error)
  state[kind] = state[kind] + 1
  state.attempts[#state.attempts + 1] = {state.failures + state.crashes, now, error}
end
local function lane_of(state)
  if state.crashes > 0 then return '{ns}:q:s:suspect' end
  return '{ns}:q:s:n'
end
local function add(entry)
  return redis.call('XADD', lane_of(entry.state), '*', 'e', entry.e, 'state', cjson.encode(entry.state))
end
"""
RETRY = (
    TAKE
    + """                                   -- ARGV: lane, id, delay in ms, error, charge
local entry = take(ARGV[1], ARGV[2])
if not entry then return 0 end
if ARGV[5] == '1' then note(entry.state, 'failures', ARGV[4]) end
if tonumber(ARGV[3]) == 0 then add(entry) else
  redis.call('ZADD', '{ns}:q:s:due', now + ARGV[3], cjson.encode({ARGV[2], entry.e, cjson.encode(entry.state)}))
end
return 1
"""
)
BURY = (
    TAKE
    + """                                    -- ARGV: lane, id, reason
local entry = take(ARGV[1], ARGV[2])
if not entry then return 0 end
redis.call('XADD', '{ns}:dead', '*', 's', 's', 'e', entry.e, 'state', cjson.encode(entry.state), 'reason', ARGV[3])
return 1
"""
)
EXTEND = (
    TAKE
    + """                                  -- ARGV: lane, id, consumer, error or ''
local pending = redis.call('XPENDING', ARGV[1], 'g', ARGV[2], ARGV[2], 1)[1]
if not pending or pending[2] ~= ARGV[3] then return 0 end
redis.call('XCLAIM', ARGV[1], 'g', ARGV[3], 0, ARGV[2], 'IDLE', 0, 'JUSTID')
if ARGV[4] ~= '' then                               -- a failure whose holder keeps the lease: entries are immutable, so
  local old = redis.call('HGET', '{ns}:q:s:marks', ARGV[2]) or redis.call('XRANGE', ARGV[1], ARGV[2], ARGV[2])[1][2][4]
  local state = cjson.decode(old)
  note(state, 'failures', ARGV[4])
  redis.call('HSET', '{ns}:q:s:marks', ARGV[2], cjson.encode(state))
end
return 1
"""
)
SWEEP = (
    TAKE
    + """                                   -- ARGV: lease in ms; what is due comes back, what expired is a suspect
for _, lane in ipairs({'{ns}:q:s:n', '{ns}:q:s:suspect'}) do
  for _, pending in ipairs(redis.call('XPENDING', lane, 'g', 'IDLE', ARGV[1], '-', '+', 100)) do
    local entry = take(lane, pending[1])
    if entry then note(entry.state, 'crashes', 'lease expired') add(entry) end
  end
end
for _, packed in ipairs(redis.call('ZRANGEBYSCORE', '{ns}:q:s:due', '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', '{ns}:q:s:due', packed)
  local item = cjson.decode(packed)
  add({e = item[2], state = cjson.decode(item[3])})
end
local nearest = redis.call('ZRANGE', '{ns}:q:s:due', 0, 0, 'WITHSCORES')
return nearest[2] and math.max(0, nearest[2] - now) or -1
"""
)
FRESH = json.dumps({"failures": 0, "crashes": 0, "attempts": []})


class Engine:
    """The scripts, as calls."""

    def __init__(self, port: int) -> None:
        """Connect, load the scripts, make the groups."""
        self.client: Any = redis.Redis(port=port, retry=NO_RETRY, decode_responses=True)
        self.scripts = {
            name: self.client.register_script(text)
            for name, text in {"retry": RETRY, "bury": BURY, "extend": EXTEND, "sweep": SWEEP}.items()
        }
        for lane in (LANE, SUSPECT):
            self.client.xgroup_create(lane, GROUP, id="0", mkstream=True)

    def add(self, body: str) -> None:
        """One event for the subscription."""
        self.client.xadd(LANE, {"e": body, "state": FRESH})

    def lease(self, consumer: str, lane: str = LANE) -> tuple[str, str, dict[str, Any]]:
        """The next entry of the lane: token, body, counters."""
        [(_, [(token, fields)])] = self.client.xreadgroup(GROUP, consumer, {lane: ">"}, count=1)
        return token, fields["e"], json.loads(fields["state"])

    def ack(self, token: str, lane: str = LANE) -> int:
        """The hot path needs no script: both commands of the pair ride in one pipeline."""
        acked, _ = self.client.pipeline(transaction=True).xack(lane, GROUP, token).xdel(lane, token).execute()
        return int(acked)

    def run(self, name: str, *arguments: Any) -> int:
        """One of the scripts."""
        return int(self.scripts[name](args=arguments))


def late_settlements_are_stale(engine: Engine) -> None:
    engine.add("guilty")
    token, _, _ = engine.lease("one")
    time.sleep(0.06)
    engine.run("sweep", 50)
    assert engine.ack(token) == 0, "an ack after the lease"
    assert engine.run("retry", LANE, token, 0, "late", 1) == 0
    assert engine.run("bury", LANE, token, "late") == 0
    assert engine.run("extend", LANE, token, "one", "") == 0
    assert engine.client.xlen(SUSPECT) == 1 and engine.client.xlen(DEAD) == 0, "nothing happened by the late ones"


def counters_travel(engine: Engine) -> None:
    token, body, state = engine.lease("two", SUSPECT)
    assert (body, state["failures"], state["crashes"]) == ("guilty", 0, 1)
    assert engine.run("extend", SUSPECT, token, "one", "") == 0, "only the holder extends"
    assert engine.run("extend", SUSPECT, token, "two", "first error") == 1, "a failure that keeps the lease"
    assert engine.run("retry", SUSPECT, token, 100, "second error", 1) == 1
    assert engine.run("retry", SUSPECT, token, 100, "twice", 1) == 0
    wait = engine.run("sweep", 10_000)
    assert 0 < wait <= 100 and engine.client.zcard(DUE) == 1, "the sweep says when to come back"
    time.sleep(wait / 1000 + 0.005)
    engine.run("sweep", 10_000)
    token, _, state = engine.lease("two", SUSPECT)
    assert engine.run("retry", SUSPECT, token, 0, "", 0) == 1, "given back: nothing charged"
    token, _, state = engine.lease("three", SUSPECT)
    assert (state["failures"], state["crashes"]) == (2, 1)
    assert [error for _, _, error in state["attempts"]] == ["lease expired", "first error", "second error"]
    assert engine.run("bury", SUSPECT, token, "handler_error") == 1
    assert engine.client.xlen(DEAD) == 1 and engine.client.xlen(SUSPECT) == 0 and engine.client.hlen(MARKS) == 0


def lost_reply_is_found_again(engine: Engine) -> None:
    engine.add("reply lost")
    engine.lease("four")
    [(_, [(token, _)])] = engine.client.xreadgroup(GROUP, "four", {LANE: "0"}, count=10)
    assert engine.ack(token) == 1, "after a reconnect one's own pending entries are read again, so no crash is charged"


def main() -> None:
    with redis_server() as server:
        engine = Engine(server.port)
        late_settlements_are_stale(engine)
        counters_travel(engine)
        lost_reply_is_found_again(engine)
        started = time.perf_counter()
        for n in range(500):
            engine.add(str(n))
            assert engine.run("retry", LANE, engine.lease("five")[0], 0, "again", 1) == 1
            assert engine.ack(engine.lease("five")[0]) == 1
        engine.client.config_resetstat()
        for n in range(500):
            engine.add(str(n))
            engine.run("retry", LANE, engine.lease("five")[0], 0, "again", 1)
        cost = engine.client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
        print(
            f"redis {engine.client.info()['redis_version']}: late ack, retry, bury, extend all settled 0; "
            f"failures 2 and crashes 1 with three dated attempts reached the dead letter; "
            f"a retry costs the server {cost:.0f} us ({time.perf_counter() - started:.1f} s in all)"
        )


if __name__ == "__main__":
    main()
