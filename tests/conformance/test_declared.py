"""What an engine declares of itself: before it is connected, and ever after."""

from __future__ import annotations

from msgspec import structs

from tests.conformance.engines import Rig
from tests.conformance.making import event


async def test_what_an_engine_can_do_is_known_before_it_is_connected_and_stays_so(rig: Rig):
    broker = rig.broker()
    before = broker.capabilities
    await broker.publish([event()])
    assert before.name == rig.engine
    assert structs.replace(broker.capabilities, promise="") == structs.replace(before, promise="")


async def test_the_promise_in_force_is_said(rig: Rig):
    broker = rig.broker()
    await broker.publish([event()])
    assert broker.capabilities.promise.endswith(".")
