"""The client where a router asks for tokens: what it shows, what it hides, and when it stops asking."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from tests.client.scripted import WELCOME, Peer, scripted, until
from tests.client.test_connecting import ours
from tests.keys import Keys, hidden
from wowevent import BrokerUnavailable, Event, EventBus, NotPermitted
from wowevent.client import EventRouterClient
from wowevent.client.connection import Connection
from wowevent.client.link import Link
from wowevent.errors import RateLimited, Unauthenticated
from wowevent.router import EventRouter

Make = Callable[..., EventRouterClient]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
async def guarded(bus: EventBus, keys: Keys) -> AsyncIterator[EventRouter]:
    keys.all_of("somebody")
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, keyring=keys.ring()) as router:
        yield router


@pytest.fixture
def token(keys: Keys) -> str:
    """That of an agent who may do everything; made before the router's keyring is."""
    return keys.all_of("alice")


async def test_a_token_says_who_the_client_is(token: str, guarded: EventRouter, make: Make):
    heard: list[Event] = []
    client = make(guarded.url, token=token)
    await client.connect()
    await client.subscribe("task.*", callback=heard.append)
    await client.publish("task.created", {"n": 1})
    await client.publish("task.created", {"n": 2}, target="alice")
    await until(lambda: len(heard) == 2)
    assert {event.source_agent for event in heard} == {"alice"}
    with pytest.raises(NotPermitted, match="alice"):
        await client.publish("task.created", {}, source_agent="bob")


async def test_the_environment_says_the_token(
    token: str, guarded: EventRouter, make: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WOWEVENT_TOKEN", token)
    await make(guarded.url).connect()
    with pytest.raises(Unauthenticated):
        await make(guarded.url, token="").connect()
    with pytest.raises(Unauthenticated):
        await make(guarded.url, token="another").connect()


async def test_a_token_that_is_refused_is_told_at_once_and_not_tried_again(guarded: EventRouter):
    client = EventRouterClient(guarded.url, token="wow_000000000000_x", reconnect_interval=0.01)
    began = time.monotonic()
    with pytest.raises(Unauthenticated, match="not valid") as raised:
        await client.connect()
    assert time.monotonic() - began < 1
    assert "wow_" not in str(raised.value)
    assert isinstance(raised.value, NotPermitted)
    assert raised.value.code == "unauthenticated"
    assert client.closed
    assert not ours()


async def test_another_agent_than_the_tokens_is_refused(token: str, guarded: EventRouter, make: Make):
    client = make(guarded.url, token=token, agent="bob")
    with pytest.raises(NotPermitted, match="alice"):
        await client.connect()
    assert client.closed
    await make(guarded.url, token=token, agent="alice").connect()


@pytest.mark.parametrize("code", [4501, 4502, 4999, 1008])
async def test_close_codes_that_say_so_end_the_connecting(code: int, make: Make):
    async def script(peer: Peer) -> None:
        assert peer.number == 1, "it came again"
        await peer.greet()
        await peer.socket.close(code, "go away")

    async with scripted(script) as url:
        client = make(url, reconnect_interval=0.01)
        await client.connect()
        await until(lambda: client.closed)
        kind = Unauthenticated if code in {4501, 4502} else NotPermitted
        with pytest.raises(kind, match=f"{code} go away"):
            await client.publish("a")
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("code", [1011, 1013, 4000, 4499, 3000])
async def test_other_close_codes_do_not(code: int, make: Make):
    async def script(peer: Peer) -> None:
        await peer.greet()
        if peer.number == 1:
            await peer.socket.close(code, "for now")
        await peer.silent()

    async with scripted(script) as url:
        client = make(url, reconnect_interval=0.01)
        await client.connect()
        await until(lambda: client.counters.reconnects == 1)


async def test_a_close_code_instead_of_a_welcome_is_told(make: Make):
    async def script(peer: Peer) -> None:
        await peer.send(WELCOME | {"max_frame": 1000})
        await peer.expect("hello")
        await peer.socket.close(4501, "say a token")

    async with scripted(script) as url:
        with pytest.raises(Unauthenticated, match="4501 say a token"):
            await make(url).connect()


async def test_a_client_whose_token_is_revoked_ends_for_good(keys: Keys, token: str, guarded: EventRouter, make: Make):
    client = make(guarded.url, token=token, reconnect_interval=0.01)
    await client.connect()
    keys.revoke(token)
    async with asyncio.timeout(2.5):
        await until(lambda: client.closed)
    with pytest.raises(Unauthenticated, match="4502"):
        await client.publish("a")
    with pytest.raises(Unauthenticated):
        await client.connect()


async def test_who_connects_again_as_soon_as_it_is_over_keeps_nothing_of_the_connection_before(
    keys: Keys, token: str, guarded: EventRouter, make: Make, monkeypatch: pytest.MonkeyPatch
):
    again: list[asyncio.Future[None]] = []
    real = Link._gone  # noqa: SLF001 - the moment when a connection ends, and nobody has heard of it

    def gone(self: Link, connection: Connection) -> None:
        real(self, connection)
        if not again:
            again.append(asyncio.ensure_future(client.connect()))

    monkeypatch.setattr(Link, "_gone", gone)
    client = make(guarded.url, token=token, reconnect_interval=0.01)
    await client.connect()
    keys.revoke(token)
    await until(lambda: again)
    with pytest.raises(Unauthenticated):
        await again[0]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "wowevent:client:link"]


async def test_a_client_that_comes_back_with_a_token_that_ended_meanwhile_ends_for_good(
    bus: EventBus, keys: Keys, token: str, make: Make
):
    router = EventRouter(host="127.0.0.1", port=0, bus=bus, keyring=keys.ring())
    await router.open()
    client = make(router.url, token=token, reconnect_interval=0.01)
    await client.connect()
    await router.stop()
    keys.revoke(token)
    async with EventRouter(host="127.0.0.1", port=router.port, bus=bus, keyring=keys.ring()):
        await until(lambda: client.closed)
        with pytest.raises(Unauthenticated):
            await client.publish("a")


@pytest.mark.parametrize("wrong", ["a b", "a\r\nHost: evil", "a\n", "", "ä", "x" * 20_000])
def test_what_cannot_be_a_token_is_refused_and_not_shown(wrong: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WOWEVENT_TOKEN", raising=False)
    if not wrong:
        EventRouterClient("ws://localhost:1", token=wrong)
        return
    with pytest.raises(ValueError, match="token") as raised:
        EventRouterClient("ws://localhost:1", token=wrong)
    assert wrong not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["ws://h:1/?token=s3cr3t", "ws://h:1/?a=b&access_token=s3cr3t", "ws://me:s3cr3t@h:1", "http://h?token=s3cr3t"],
)
def test_a_secret_in_the_url_is_refused_and_not_shown(url: str):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is looked at below
        EventRouterClient(url)
    assert "s3cr3t" not in str(raised.value)


async def test_a_token_is_in_no_repr_and_in_no_line_of_the_log(
    token: str, guarded: EventRouter, make: Make, caplog: pytest.LogCaptureFixture
):
    levels = {name: logging.getLogger(name).level for name in (None, "picows.wowevent", "wowevent")}
    logging.getLogger().setLevel(1)
    caplog.set_level(1, "wowevent")
    try:
        client = make(guarded.url, token=token)
        await client.connect()
        await client.publish("a")
        with pytest.raises(Unauthenticated):
            await make(guarded.url, token=f"{token}x").connect()
        shown = [repr(client), repr(vars(client)), *(repr(vars(each)) for each in (client._link, client._outgoing))]  # noqa: SLF001 - whoever debugs prints them
        await client.disconnect()
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    secret = hidden(token)
    assert all(secret not in each for each in shown)
    lines = [record.getMessage() for record in caplog.records if not record.name.startswith("websockets")]
    assert lines
    assert all(secret not in line for line in lines)


def test_a_token_that_goes_where_others_can_read_it_is_said(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "wowevent"):
        for url in ("ws://localhost:1", "ws://127.0.0.1:1", "wss://bus.example:1"):
            EventRouterClient(url, token="abc")
        assert not caplog.records
        EventRouterClient("ws://bus.example:1", token="abc")
    (record,) = caplog.records
    assert "wss://" in record.getMessage()


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_short_tokens_follow_each_other(keys: Keys, guarded: EventRouter, make: Make, how: str):
    issued: list[str] = []

    def issue() -> str:
        issued.append(keys.jwt(sub="alice"))
        return issued[-1]

    async def issue_later() -> str:
        await asyncio.sleep(0)
        return issue()

    client = make(guarded.url, token=issue if how == "sync" else issue_later, reconnect_interval=0.05)
    await client.connect()
    assert len(issued) == 1
    keys.later = 100  # the first has expired; what is issued from now on has not
    await until(lambda: client.counters.reconnects == 1)
    await client.publish("a")
    assert len(issued) == 2


@pytest.mark.parametrize(
    "finds", [lambda: 1 / 0, lambda: "a\r\nb", lambda: "", lambda: None], ids=["raises", "no token", "empty", "nothing"]
)
async def test_a_token_that_is_not_found_is_told(guarded: EventRouter, make: Make, finds: Callable[[], str]):
    client = make(guarded.url, token=finds)
    with pytest.raises(BrokerUnavailable, match="no token was found"):
        await client.connect()
    assert client.closed


async def test_a_function_whose_token_is_refused_is_not_asked_for_ever(guarded: EventRouter, make: Make):
    asked: list[int] = []

    def find() -> str:
        asked.append(1)
        return "wow_000000000000_x"

    client = make(guarded.url, token=find, reconnect_interval=0.01)
    with pytest.raises(Unauthenticated):
        await client.connect()
    await asyncio.sleep(0.1)
    assert asked == [1]


# --- rights, as they come to who calls --------------------------------------------------------------------------------


async def test_what_a_token_does_not_grant_is_raised(keys: Keys, bus: EventBus, make: Make):
    token = keys.token("alice", publish=["a.*"], subscribe=["a.*"])
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, keyring=keys.ring()) as router:
        client = make(router.url, token=token)
        await client.connect()
        with pytest.raises(NotPermitted, match=r"publish on 'b\.c'"):
            await client.publish("b.c")
        with pytest.raises(NotPermitted):
            await client.request("b.c")
        with pytest.raises(NotPermitted, match="subscribe on '#'"):
            await client.subscribe("#", callback=print)
        with pytest.raises(NotPermitted, match="alice"):
            await client.subscribe("a.*", callback=print, name="bob")
        with pytest.raises(NotPermitted, match="replay"):
            await client.subscribe("a.*", callback=print, name="alice", start="first")
        await client.publish("a.b")
        assert client.connected


async def test_who_is_too_fast_is_told_when_to_go_on(keys: Keys, bus: EventBus, make: Make):
    token = keys.token("alice", publish=["#"], limits={"events": "10/s"})
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, keyring=keys.ring()) as router:
        client = make(router.url, token=token)
        await client.connect()
        with pytest.raises(RateLimited) as raised:
            await asyncio.gather(*(client.publish("a") for _ in range(20)))
        assert 0 < raised.value.retry_after < 1
        await asyncio.sleep(raised.value.retry_after)
        await client.publish("a")


@pytest.mark.parametrize("replay", [True, False])
async def test_a_connection_that_breaks_misses_nothing_with_the_right_to_replay(
    keys: Keys, bus: EventBus, make: Make, *, replay: bool
):
    """Without it, it goes on from then, and says that something may be missing."""
    token = keys.token("alice", subscribe=["#"], replay=["#"] if replay else [])
    heard: list[int] = []
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, keyring=keys.ring()) as router:
        client = make(router.url, token=token, reconnect_interval=0.1)
        await client.connect()
        await client.subscribe("#", callback=lambda event: heard.append(event.payload["n"]))
        await bus.publish(Event(topic="a", payload={"n": 1}))
        await until(lambda: heard == [1])
        for connection in list(router._connections):  # noqa: SLF001 - the break
            connection.abort()
        await bus.publish(Event(topic="a", payload={"n": 2}))  # at once: it is back within a tenth of a second
        await until(lambda: client.counters.reconnects == 1)
        await until(lambda: client.counters.resets == (0 if replay else 1))
        await client.get_health()
        await bus.publish(Event(topic="a", payload={"n": 3}))
        await until(lambda: 3 in heard)
        assert heard == ([1, 2, 3] if replay else [1, 3])


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure(bus: EventBus, keys: Keys, token: str, authority: trustme.CA) -> AsyncIterator[EventRouter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, keyring=keys.ring(), ssl=context) as router:
        yield router


@pytest.mark.parametrize("by", ["ca", "WOWEVENT_CA", "ssl"])
async def test_wss(  # noqa: PLR0917 - fixtures
    by: str,
    secure: EventRouter,
    token: str,
    authority: trustme.CA,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    if by == "ssl":
        context = ssl.create_default_context()
        authority.configure_trust(context)
        client = make(secure.url, token=token, ssl=context)
    elif by == "ca":
        client = make(secure.url, token=token, ca=file)
    else:
        monkeypatch.setenv("WOWEVENT_CA", str(file))
        client = make(secure.url, token=token)
    await client.connect()
    assert secure.url.startswith("wss://")
    heard: list[Event] = []
    await client.subscribe("#", callback=heard.append)
    for n in range(30):
        await client.publish("a", {"n": n, "text": "x" * 100_000})
    await until(lambda: len(heard) == 30)
    assert [event.payload["n"] for event in heard] == list(range(30))


async def test_a_certificate_that_nobody_vouches_for_is_refused(secure: EventRouter, token: str, make: Make):
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await make(secure.url, token=token).connect()


async def test_a_certificate_of_another_name_is_refused(
    bus: EventBus, authority: trustme.CA, make: Make, tmp_path: Path
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("bus.example").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, ssl=context) as router:
        with pytest.raises(BrokerUnavailable, match="not valid for"):
            await make(router.url, ca=file).connect()


async def test_a_router_that_speaks_no_tls_is_told(guarded: EventRouter, token: str, make: Make):
    with pytest.raises(BrokerUnavailable):
        await make(guarded.url.replace("ws://", "wss://"), token=token, timeout=0.5).connect()


def test_authorities_and_a_context_exclude_each_other(tmp_path: Path):
    with pytest.raises(ValueError, match="exclude"):
        EventRouterClient("wss://h:1", ssl=ssl.create_default_context(), ca=tmp_path / "ca.pem")
    with pytest.raises(ValueError, match=r"ca\.pem"):
        EventRouterClient("wss://h:1", ca=tmp_path / "ca.pem")
