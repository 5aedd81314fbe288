"""The seconds in which a service ends: a pod is killed after 30, whatever was under way."""

import asyncio

import pytest

from wowevent.service import create_app, server


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
