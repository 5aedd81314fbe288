"""What a soak concludes: of numbers that stay, grow or swing, and of journals that lack something."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.journal import Journal
from tests.soak.faults import order
from tests.soak.ledger import Ledger
from tests.soak.verdict import SHORTEST, Sample, judged

SECONDS = 1000.0


def samples(of):
    return [Sample(at, of(at)) for at in range(0, 1000, 5)]


@pytest.mark.parametrize(
    ("name", "of", "flat"),
    [
        ("memory still", lambda at: 80.0, True),
        ("memory warming", lambda at: min(80.0, 20.0 + at), True),
        ("memory leaking", lambda at: 80.0 + at / 10, False),
        ("memory within the growth", lambda at: 80.0 + at / 50, True),
        ("tasks leaking", lambda at: 10.0 + at / 10, False),
        ("handles leaking", lambda at: 10.0 + at / 20, False),
        ("ready spikes", lambda at: 5000.0 if at % 50 == 0 else 0.0, True),
        ("ready piling", lambda at: at, False),
        ("dead piling", lambda at: at / 10, False),
        ("wal saw", lambda at: at % 60 / 10, True),
        ("wal growing saw", lambda at: at % 60 / 60 * at / 10, False),
        ("disk growing", lambda at: at / 2, False),
    ],
)
def test_what_is_flat(name, of, flat):
    finding = judged(name, samples(of), SECONDS)
    assert finding is not None
    assert finding.flat is flat


def test_a_saw_is_judged_by_its_height():
    """Half of its samples are low: their median would say nothing."""
    finding = judged("wal saw", samples(lambda at: 100.0 if at > 900 and at % 20 == 0 else 1.0), SECONDS)
    assert finding is not None
    assert (finding.before, finding.after, finding.flat) == (1.0, 100.0, False)


def test_of_a_short_run_nothing_is_said():
    finding = judged("memory leaking", [Sample(at, at * 10.0) for at in range(300)], 300.0)
    assert finding is not None
    assert finding.flat is None
    assert SHORTEST > 300


def test_what_was_not_seen_at_both_times_is_not_judged():
    assert judged("server gone", [Sample(at, 1.0) for at in range(500)], SECONDS) is None


def test_no_fault_is_left_out_by_chance():
    kinds = "abcde"
    drawn = order(kinds, seed=3)
    rounds = [[next(drawn) for _ in kinds] for _ in range(4)]
    assert all(sorted(each) == sorted(kinds) for each in rounds)
    again = order(kinds, seed=3)
    assert [next(again) for _ in range(20)] == [kind for each in rounds for kind in each]


class Story:
    """A publisher and two subscriptions, as their journals tell it."""

    def __init__(self, folder: Path) -> None:
        self.published = Journal(folder / "p.jsonl", "p")
        self.handled = Journal(folder / "c.jsonl", "c")
        for name in ("shared", "ordered"):
            self.handled.write("ready", key=f"{name}|load.#")
        self.ledger = Ledger(folder)

    def publish(self, number: int, digest: str = "d") -> None:
        self.published.write("invoked", f"p-{number}", digest=digest)
        self.published.write("ok", f"p-{number}", position=f"e-{number + 1}")

    def handle(self, number: int, *names: str, digest: str = "d", position: int | None = None) -> None:
        where = f"e-{number + 1 if position is None else position}"
        for name in names or ("shared", "ordered"):
            self.handled.write("effect", f"p-{number}", key=f"{name}|k", position=where, digest=digest)

    def judge(self, before: float = float("inf")) -> dict[str, int]:
        self.ledger.update()
        self.ledger.sweep(before)
        return self.ledger.total

    def close(self) -> None:
        self.published.close()
        self.handled.close()


@pytest.fixture
def story(tmp_path: Path):
    story = Story(tmp_path)
    yield story
    story.close()


def test_what_is_settled_is_counted_and_forgotten(story: Story):
    for number in range(100):
        story.publish(number)
        story.handle(number)
    found = story.judge()
    assert (found["events"], found["ok"], found["lost"], found["duplicates"]) == (100, 200, 0, 0)
    assert not story.ledger._open  # noqa: SLF001 - that it is forgotten is what keeps a long run small


def test_an_event_that_one_subscription_dropped_is_lost_until_it_comes(story: Story):
    story.publish(0)
    story.publish(1)
    story.handle(0)
    story.handle(1, "shared")
    assert story.judge()["lost"] == 1
    assert story.ledger.left.lost == {"ordered/p-1"}
    assert story.judge()["lost"] == 1, "it is not forgotten by being looked at"
    story.handle(1, "ordered")
    found = story.judge()
    assert (found["lost"], found["events"], found["ok"]) == (0, 2, 4)


def test_what_is_young_is_not_judged_yet(story: Story):
    story.publish(0)
    assert story.judge(time.monotonic() - 60)["lost"] == 0
    assert story.judge()["lost"] == 2


def test_what_comes_again_after_it_was_forgotten_is_a_duplicate(story: Story):
    story.publish(7)
    story.handle(7)
    story.judge()
    story.handle(7, "shared")
    found = story.judge()
    assert (found["duplicates"], found["unexpected"], found["events"]) == (1, 0, 1)


def test_what_nobody_published_is_unexpected(story: Story):
    story.publish(7)
    story.handle(7)
    story.judge()
    story.handle(6, "shared")
    assert story.judge()["unexpected"] == 1


def test_what_was_changed_on_its_way_is_altered(story: Story):
    story.publish(0)
    story.handle(0, digest="x")
    assert story.judge()["altered"] == 2


def test_only_what_keeps_an_order_has_inversions(story: Story):
    for number in (0, 1):
        story.publish(number)
    for name in ("shared", "ordered"):
        story.handle(1, name)
        story.handle(0, name)
    assert story.judge()["inversions"] == 1


def test_threads_that_look_at_once_count_each_line_once(story: Story):
    """One looks while the run waits for a process to end, another judges every second."""
    for number in range(2000):
        story.publish(number)
        story.handle(number)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: story.ledger.update(), range(8)))
    found = story.judge()
    assert (found["events"], found["ok"], found["duplicates"]) == (2000, 4000, 0)
    assert story.ledger.given == {"p": 2000}
