"""Ids that are made here: UUIDs of version 7 that grow, whatever the clock does."""

import os
import re
import sys
import threading
from uuid import UUID

import pytest

from wowevent import id as module
from wowevent.id import new_id

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch):
    """A source of ids whose clock the test sets, in milliseconds."""
    now = [1_700_000_000_000]
    monkeypatch.setattr(module, "time_ns", lambda: now[0] * 1_000_000)
    return module._Ids(), now  # noqa: SLF001 - one of its own, with a clock that can be moved


def milliseconds(id: str) -> int:
    return UUID(id).int >> 80


def test_ids_are_uuid7_unique_and_increasing():
    made = [new_id() for _ in range(20_000)]
    assert all(UUID7.fullmatch(id) for id in made)
    assert {UUID(id).version for id in made[:100]} == {7}
    assert made == sorted(set(made))


def test_an_id_tells_when_it_was_made(ids):
    source, now = ids
    assert milliseconds(source.new()) == now[0]
    now[0] += 5
    assert milliseconds(source.new()) == now[0]


def test_ids_increase_while_the_clock_stands_still_for_more_than_the_counter_holds(ids):
    source, now = ids
    made = [source.new() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert milliseconds(made[-1]) == now[0] + 2


def test_ids_increase_when_the_clock_is_set_back(ids):
    source, now = ids
    made = [source.new()]
    for _ in range(100):
        now[0] -= 1000
        made.append(source.new())
    now[0] += 200_000
    made.append(source.new())
    assert made == sorted(set(made))
    assert milliseconds(made[-1]) == now[0]


def test_ids_made_by_many_threads_at_once_are_unique_and_increasing_in_each():
    made: list[list[str]] = [[] for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda own=own: own.extend(new_id() for _ in range(3_000))) for own in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert all(own == sorted(own) for own in made)
    assert len({id for own in made for id in own}) == 24_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_repeat_its_parents_ids():
    new_id()  # the pool is filled
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - another process
        os.write(writer, "\n".join(new_id() for _ in range(500)).encode())
        os._exit(0)
    parents = [new_id() for _ in range(500)]
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        childs = pipe.read().split("\n")
    assert len({*parents, *childs}) == 1000
    tails = {id[-12:] for id in parents} & {id[-12:] for id in childs}
    assert not tails
