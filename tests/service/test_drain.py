"""The seconds in which a service ends: a pod is killed after 30, whatever was under way."""

import asyncio
from collections.abc import Iterator

import pytest

from wowevent import EventBus
from wowevent.access.address import Listening, listen
from wowevent.service import create_app, server
from wowevent.settings import Settings


class Slow:
    """Replays that do not end by themselves."""

    async def close(self) -> None:
        await asyncio.sleep(10)


class Beside:
    """What is beside the bus: how long it was given."""

    def __init__(self) -> None:
        self.given: list[float] = []

    async def open(self) -> None:
        pass

    async def stop(self, timeout: float) -> None:
        self.given.append(timeout)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    """A port for a service that nobody tells to end."""
    monkeypatch.setattr(server, "ending", lambda _parent: asyncio.Event())
    taken = listen("http", "127.0.0.1", 0, allow_anonymous=False)
    yield taken
    taken.socket.close()


async def test_who_comes_later_has_what_is_left_and_a_little_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_DRAIN", 0.3)
    monkeypatch.setattr(server, "_LEAST", 0.1)
    app, started = create_app(None), asyncio.create_task(asyncio.sleep(0))
    beside = Beside()
    await server._drain(app, None, beside, started)  # noqa: SLF001 - the order of what ends is its own
    app.state.replays = Slow()
    await server._drain(app, None, beside, started)  # noqa: SLF001 - as above
    prompt, late = beside.given
    assert 0.2 < prompt <= 0.3
    assert late == 0.1


async def test_a_service_that_cannot_say_that_it_serves_ends_as_any_other(listening: Listening) -> None:
    bus = EventBus("memory://")

    async def started() -> None:
        raise OSError("the disk is full")

    async with asyncio.timeout(10):
        with pytest.raises(OSError, match="the disk is full"):
            await server.serve(bus, listening, Settings(), started=started)
    assert (await bus.health())["event_bus"] == "stopped"


async def test_a_service_that_cannot_listen_says_so(listening: Listening) -> None:
    bus, said = EventBus("memory://"), list[str]()

    async def started() -> None:
        said.append("serves")

    listening.socket.close()
    async with asyncio.timeout(10):
        with pytest.raises((OSError, ValueError)):
            await server.serve(bus, listening, Settings(), started=started)
    assert (said, (await bus.health())["event_bus"]) == ([], "stopped")
