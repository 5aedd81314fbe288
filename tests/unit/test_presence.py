"""Who is there, as instances tell each other: who serves what, from one look at what each has said."""

from __future__ import annotations

from wowevent.broker import Subscription
from wowevent.presence import GONE, Note, Presence
from wowevent.routing import Routes, spec_of
from wowevent.testing import ManualClock


def remembered(*ids: str) -> Routes:
    routes = Routes()
    for id in ids:
        routes.add(Subscription(id=id, patterns=("#",)))
    return routes


def test_all_are_counted_once_an_instance_and_the_live_ones_with_them() -> None:
    presence = Presence("me", ManualClock())
    presence.serving.add("a")
    live = Subscription(id="live", patterns=("x",), durable=False)
    presence.hear(Note("other", live={"live": spec_of(live)}, serves=("a", "b", "b")))
    presence.hear(Note("third", serves=("b", "forgotten")))
    found = presence.all(remembered("a", "b", "idle"))
    assert [(each.subscription.id, each.consumers) for each in found] == [("a", 2), ("b", 2), ("idle", 0), ("live", 1)]
    assert found[-1].subscription == live


async def test_who_is_silent_for_too_long_serves_nothing() -> None:
    clock = ManualClock()
    presence = Presence("me", clock)
    live = Subscription(id="live", patterns=("x",), durable=False)
    presence.hear(Note("other", live={"live": spec_of(live)}, serves=("a",)))
    await clock.advance(GONE + 1)
    assert [(each.subscription.id, each.consumers) for each in presence.all(remembered("a"))] == [("a", 0)]
