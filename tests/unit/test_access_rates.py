"""How fast an identity may go on, and how often its refusals are told."""

import logging
import time

import pytest

from wowevent.access import audit as audits
from wowevent.access.audit import audit
from wowevent.access.rates import Rates
from wowevent.access.rights import Identity, Limits
from wowevent.errors import RateLimited

WORKER = Identity("worker", "1", limits=Limits(events="10/s", requests="2/min"))


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spent(rates: Rates, count: int = 1) -> bool:
    try:
        rates.spend(WORKER, "events", count)
    except RateLimited:
        return False
    return True


def test_a_seconds_share_is_there_at_once_and_then_comes_evenly() -> None:
    clock = Time()
    rates = Rates(clock)
    assert [spent(rates) for _ in range(12)] == [True] * 10 + [False] * 2
    clock.now += 0.05
    assert not spent(rates)
    clock.now += 0.05
    assert [spent(rates) for _ in range(2)] == [True, False]
    clock.now += 3600
    assert sum(spent(rates) for _ in range(20)) == 10, "what was not used is not saved up"


def test_a_batch_passes_and_is_paid_for_behind() -> None:
    clock = Time()
    rates = Rates(clock)
    assert spent(rates, 1000)
    assert not spent(rates)
    with pytest.raises(RateLimited) as refused:
        rates.spend(WORKER, "events")
    assert refused.value.retry_after == pytest.approx(99.1)
    clock.now += refused.value.retry_after
    assert spent(rates)


def test_a_slow_rate_lets_one_through_at_once() -> None:
    clock = Time()
    rates = Rates(clock)
    rates.spend(WORKER, "requests")
    with pytest.raises(RateLimited, match="worker may have 2/min requests") as refused:
        rates.spend(WORKER, "requests")
    assert refused.value.retry_after == pytest.approx(30)
    rates.spend(WORKER, "events")


def test_who_has_no_limit_is_not_counted() -> None:
    rates = Rates(Time())
    for _ in range(100):
        rates.spend(None, "events")
        rates.spend(Identity("free", "2"), "events")
    for _ in range(10):
        assert spent(rates), "and takes nothing of what others may"


def test_refusals_are_told_once_a_second_with_how_many_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    monkeypatch.setattr(time, "monotonic", clock)
    with caplog.at_level(logging.INFO, "wowevent"):
        for _ in range(100):
            audit("told.once", WORKER, outcome="refused", topic="t")
        audit("told.once", None, outcome="refused")
        audit("told.twice", WORKER, outcome="refused")
        clock.now += 1
        audit("told.once", WORKER, outcome="refused", topic="t")
        for _ in range(3):
            audit("told.always", WORKER)

    assert [record.message for record in caplog.records] == [
        "audit action=told.once who=worker token=1 outcome=refused topic=t",
        "audit action=told.once who=nobody token= outcome=refused",
        "audit action=told.twice who=worker token=1 outcome=refused",
        "audit action=told.once who=worker token=1 outcome=refused topic=t more=99",
        *["audit action=told.always who=worker token=1 outcome=done"] * 3,
    ]


def test_a_flood_of_names_is_not_remembered(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3000):
        audit("flood", Identity(f"agent-{number}", ""), outcome="refused")

    assert len(audits._refused) <= 1000  # noqa: SLF001 - it is seen nowhere else
