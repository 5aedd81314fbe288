"""Whatever a stranger sends: an answer with a code, nothing stored, and the next event is served within a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conformance.engines import eventually
from tests.router.conftest import Frame, Join, Talker, event, numbers, talking
from wowevent.router import EventRouter


@asynccontextmanager
async def unharmed(router: EventRouter) -> AsyncIterator[Talker]:
    """A client to do harm with; afterwards it, if it is there, and another one are served at once."""
    async with talking(router) as other, talking(router) as bad:
        await other.subscribe("task.*")
        yield bad
        async with asyncio.timeout(1):
            await other.publish(n=42)
            assert numbers(await other.events(1)) == [42], "what was refused was stored"
            if bad.socket.close_code is None:
                assert (await bad.publish("other.topic"))["status"] == "queued"


async def error(client: Talker) -> str:
    """The code of the error frame that must come next."""
    frame = await client.hear("error", "published", "subscribed", "settled", "pong", "hello", "unsubscribed", "reply")
    assert frame["type"] == "error", frame
    assert len(frame["message"]) < 2000
    code: str = frame["error"]
    return code


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "malformed": b"{type: ping}",
    "truncated": b'{"type":"pi',
    "two of them": b'{"type":"ping"}{"type":"ping"}',
    "a trailing comma": b'{"type":"ping",}',
    "a comment": b'{"type":"ping"} // hello',
    "NaN": b'{"type":"ping","echo":NaN}',
    "Infinity": b'{"type":"ping","echo":-Infinity}',
    "1e999": b'{"type":"ping","echo":1e999}',
    "5,000 digits": b'{"type":"ping","echo":%b}' % (b"9" * 5000),
    "5,000 digits as a ref": b'{"type":"ping","ref":%b}' % (b"9" * 5000),
    "a type twice": b'{"type":"ping","type":"get_health"}',
    "a key twice deep down": b'{"type":"publish","event":{"topic":"task.a","payload":{"a":{"b":1,"b":2}}}}',
    "a lone high surrogate": b'{"type":"ping","echo":"\\ud800"}',
    "a lone low surrogate as a key": b'{"type":"ping","\\udc00":1}',
    "a NUL": b'{"type":"ping","echo":"\x00"}',
    "a NUL behind it": b'{"type":"ping"}\x00',
    "a line break in text": b'{"type":"ping","echo":"a\nb"}',
    "a BOM": b'\xef\xbb\xbf{"type":"ping"}',
    "100,000 levels of lists": b'{"type":"ping","echo":%b' % (b"[" * 100_000),
    "100,000 levels of objects": b'{"type":"ping","echo":' + b'{"a":' * 50_000,
    "1,000 closed levels": b'{"type":"ping","echo":%b%b}' % (b"[" * 1000, b"]" * 1000),
    "a list": b"[]",
    "null": b"null",
    "a number": b"12345",
    "text": b'"ping"',
    "an empty object": b"{}",
}


@pytest.mark.parametrize("what", NOT_JSON)
async def test_what_is_no_frame_is_answered_and_the_connection_goes_on(router: EventRouter, what: str):
    async with unharmed(router) as bad:
        await bad.text(NOT_JSON[what])
        assert await error(bad) in {"invalid_event", "protocol_error"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
async def test_what_is_no_utf8_ends_the_connection(router: EventRouter, encoding: str):
    data = '{"type":"ping","echo":"grüße"}'.encode(encoding)
    async with unharmed(router) as bad:
        await bad.text(data)
        if b"\xff" in data[:2] or encoding == "latin-1" or not _decodes(data):
            assert (await bad.closed())[0] == 1007
        else:
            assert await error(bad) == "invalid_event"


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


GOOD: dict[str, Frame] = {
    "hello": {"batch": True, "agent": "a", "client": "c"},
    "publish": {"event": event("other.a")},
    "subscribe": {"subscription": {}},
    "unsubscribe": {"subscription_id": "sub-1"},
    "ack": {"subscription_id": "sub-1", "tokens": []},
    "nack": {
        "subscription_id": "sub-1",
        "tokens": [],
        "error": "e",
        "traceback": "t",
        "retry_after": 1,
        "reject": True,
        "release": True,
    },
    "request": {"event": event("other.a"), "timeout": 1},
    "reply": {"event": {"event_id": "e", "correlation_id": "c", "reply_to": "_reply.a"}, "error": "e"},
    "ping": {"ref": 1},
    "get_health": {"ref": 1},
}
FIELDS = [(type, name) for type, fields in GOOD.items() for name in fields]
WRONG: tuple[Any, ...] = (True, 5, 2**70, -1.5, "\x00", [1], [[]], {"a": {}}, [None])


@pytest.mark.parametrize(("type", "name"), FIELDS)
async def test_a_wrong_type_for_any_field_is_an_error_frame_or_means_nothing(router: EventRouter, type: str, name: str):
    async with unharmed(router) as bad:
        for wrong in (None, *WRONG):
            await bad.text(json.dumps({"type": type, "ref": "r", **GOOD[type], name: wrong}))
            await bad.ask("ping")
            if type in {"subscribe", "get_health", "request"}:  # these take a moment
                await bad.hear("error", "subscribed", "health")
        told = {frame["type"] for frame in bad.kept}
        assert told <= {"error", "hello", "pong", "health", "subscribed"}, bad.kept


WANTED = [
    "topics",
    "types",
    "priorities",
    "min_priority",
    "sources",
    "name",
    "subscription",
    "after",
    "start",
    "lease",
    "max_retries",
    "credit",
    "held",
]


RIGHT: dict[str, list[Any]] = {
    "types": [["\x00"]],
    "priorities": [[1]],
    "min_priority": [5],
    "lease": [5],
    "max_retries": [5, 2**70],
    "credit": [5],
}


@pytest.mark.parametrize("name", WANTED)
async def test_a_wrong_type_for_any_field_of_a_subscription_is_an_error_frame(router: EventRouter, name: str):
    async with unharmed(router) as bad:
        for wrong in WRONG:
            answer = await bad.ask("subscribe", subscription={"name": "n", name: wrong})
            if answer["type"] == "subscribed":
                assert wrong in RIGHT[name], answer
                await bad.ask("unsubscribe", subscription_id=answer["subscription_id"])
            else:
                assert answer["error"] in {"invalid_event", "invalid_topic", "protocol_error"}


EVENT_FIELDS = [
    "topic",
    "event_type",
    "payload",
    "source_agent",
    "source_service",
    "target_agent",
    "event_id",
    "timestamp",
    "priority",
    "correlation_id",
    "parent_event_id",
    "trace_id",
    "traceparent",
    "execution_id",
    "ttl_seconds",
    "not_before",
    "max_retries",
    "reply_to",
    "hops",
    "replay_of",
    "headers",
    "id",
    "source",
    "source_agent_id",
    "target",
    "type",
    "metadata",
    "v",
]
WRONG_OF_EVENTS: tuple[Any, ...] = (True, [1], [[]], {"a": {}}, "\x00", "a\r\nb", "x" * 5000, -1, 2**70, 1e308)


@pytest.mark.parametrize("name", EVENT_FIELDS)
async def test_a_wrong_value_for_any_field_of_an_event_is_an_error_frame(router: EventRouter, name: str):
    async with unharmed(router) as bad:
        for wrong in WRONG_OF_EVENTS:
            if name in {"payload", "metadata"} and isinstance(wrong, dict):
                continue
            for frame in ("publish", "request"):
                answer = await bad.ask(frame, event={"topic": "other.a", "source_agent": "s", name: wrong})
                assert answer["type"] == "error", (wrong, answer)
                assert answer["error"].startswith(("invalid_", "format_too_new", "protocol_")), answer


NAMES = (
    "",
    " ",
    "a b",
    "../../etc/passwd\x00",
    "a\r\nSET x 1",
    "a\n",
    "a\x00b",
    "*",
    "#",
    "a*",
    ">",
    "$SYS.a",
    "$",
    "%s%n",
    "é",
    "a" * 256,
    "\u202e",
    "'; DROP TABLE log; --",
    "{}",
    "~",
)
ENTRANCES: dict[str, Any] = {
    "agent": lambda name: ("hello", {"agent": name}),
    "client": lambda name: ("hello", {"client": name}),
    "topic": lambda name: ("publish", {"event": {"topic": name}}),
    "topic of a request": lambda name: ("request", {"event": {"topic": name}}),
    "type": lambda name: ("publish", {"event": {"topic": "other", "type": name}}),
    "source": lambda name: ("publish", {"event": {"topic": "other", "source": name}}),
    "target": lambda name: ("publish", {"event": {"topic": "other", "target": name}}),
    "event_id": lambda name: ("publish", {"event": {"topic": "other", "event_id": name}}),
    "correlation_id": lambda name: ("publish", {"event": {"topic": "other", "correlation_id": name}}),
    "reply_to": lambda name: ("publish", {"event": {"topic": "other", "reply_to": name}}),
    "pattern": lambda name: ("subscribe", {"subscription": {"topics": [name]}}),
    "name": lambda name: ("subscribe", {"subscription": {"name": name}}),
    "subscription": lambda name: ("subscribe", {"subscription": {"subscription": name}}),
    "sources": lambda name: ("subscribe", {"subscription": {"sources": [name]}}),
    "after": lambda name: ("subscribe", {"subscription": {"after": name}}),
    "start": lambda name: ("subscribe", {"subscription": {"name": "n", "start": name}}),
    "subscription_id of unsubscribe": lambda name: ("unsubscribe", {"subscription_id": name}),
    "subscription_id of ack": lambda name: ("ack", {"subscription_id": name, "tokens": [name]}),
    "reply_to of a reply": lambda name: (
        "reply",
        {"event": {"event_id": "e", "correlation_id": "c", "reply_to": f"_reply.{name}"}},
    ),
    "event_id of a reply": lambda name: (
        "reply",
        {"event": {"event_id": name, "correlation_id": "c", "reply_to": "_reply.a"}},
    ),
    "a type of frame": lambda name: (name, {}),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_names_that_are_none_are_refused_at_every_entrance(router: EventRouter, entrance: str):
    async with unharmed(router) as bad:
        for name in NAMES:
            if (entrance, name) in {("pattern", "*"), ("pattern", "#"), ("source", "")}:
                continue  # patterns; no source
            type, fields = ENTRANCES[entrance](name)
            answer = await bad.ask(type, **fields)
            assert answer["type"] == "error", (name, answer)


async def test_paths_are_names_and_lead_nowhere(router: EventRouter, tmp_path, join: Join):
    client = await join(router, agent="../../a", client="../../c")
    await client.subscribe(name="../../../x")
    await client.publish()
    await client.event()
    assert not list(tmp_path.parent.glob("**/x"))


PATTERNS = {
    "a hundred hashes": [".".join(["#"] * 100)],
    "hashes and stars": [".".join(["#", "*"] * 50)],
    "hashes and words": [".".join(["#", "a"] * 50)],
    "two hundred of them": [f"{'#.a.' * 10}{n}" for n in range(200)],
    "the same a thousand times": ["#.#.#.a"] * 256,
}


@pytest.mark.parametrize("what", PATTERNS)
@pytest.mark.parametrize("name", [None, "bomb"])
async def test_pattern_bombs_cost_others_nothing(router: EventRouter, what: str, name: str | None):
    async with unharmed(router) as bad:
        answer = await bad.ask("subscribe", subscription={"topics": PATTERNS[what], "name": name})
        assert answer["type"] in {"subscribed", "error"}
        async with asyncio.timeout(20):  # one that grows with a power would take for ever
            for _ in range(20):
                await bad.publish(".".join(["a"] * 100))


async def test_as_many_patterns_as_fit_into_a_frame_block_nobody(router: EventRouter):
    """The guard of blocked loops watches."""
    topics = [f"{n:x}.a" for n in range(30_000)]
    async with unharmed(router) as bad:
        answer = await bad.ask("subscribe", subscription={"topics": topics})
        assert answer["type"] == "error"
        assert answer["error"] == "not_supported"


async def test_a_storm_of_subscriptions_leaves_the_others_served(router: EventRouter):
    async with unharmed(router) as bad:
        for n in range(500):
            await bad.text(json.dumps({"type": "subscribe", "subscription": {"topics": [f"storm.{n}"]}}))
            await bad.text(json.dumps({"type": "unsubscribe", "subscription_id": f"sub-{n + 1}"}))
            if n % 10 == 0:
                await asyncio.sleep(0)
        await bad.ask("ping")
        await eventually(lambda: _few(bad))  # while so much of it is under way, more is refused


async def _few(client: Talker) -> bool:
    frame = await client.ask("get_health")
    return frame["type"] != "error" and frame["health"]["subscriptions"] <= 129
