"""The checker finds each anomaly in a history made by hand: a judge that never convicts proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.checker import check
from tests.faults.journal import Entry, Journal, Tail, What

SOUND: list[tuple[What, str, dict[str, Any]]] = [
    ("invoked", "a", {"digest": "1"}),
    ("ok", "a", {"position": "e-1"}),
    ("delivered", "a", {"position": "e-1", "digest": "1"}),
    ("effect", "a", {"position": "e-1", "key": "k"}),
    ("acked", "a", {}),
    ("invoked", "b", {"digest": "2"}),
    ("ok", "b", {"position": "e-2"}),
    ("effect", "b", {"position": "e-2", "key": "k"}),
    ("acked", "b", {}),
]


def history(*lines: tuple[What, str, dict[str, Any]]) -> list[Entry]:
    return [Entry(time=float(at), process="p", what=what, id=id, **facts) for at, (what, id, facts) in enumerate(lines)]


def test_a_sound_history_breaks_nothing():
    report = check(history(*SOUND))
    assert not report.broken()
    assert not report.duplicates
    assert not report.inversions
    assert not report.recovered
    assert report.ok == report.handled == {"a", "b"}


def test_what_was_confirmed_and_never_handled_is_lost():
    report = check(history(*SOUND, ("invoked", "c", {}), ("ok", "c", {"position": "e-3"})))
    assert report.broken() == {"lost": {"c"}}


def test_a_delivery_without_effect_does_not_count():
    report = check(history(("invoked", "c", {}), ("ok", "c", {}), ("delivered", "c", {}), ("acked", "c", {})))
    assert report.lost == {"c"}


@pytest.mark.parametrize("kept", ["dead", "retained"])
def test_what_is_dead_or_retained_is_not_lost(kept: str):
    assert not check(history(("invoked", "c", {}), ("ok", "c", {})), **{kept: ["c"]}).lost


@pytest.mark.parametrize("what", ["delivered", "effect", "buried"])
def test_what_nobody_published_is_unexpected(what: What):
    assert check(history(*SOUND, (what, "x", {}))).unexpected == {"x"}


@pytest.mark.parametrize("kept", ["dead", "retained"])
def test_so_is_what_the_engine_made_up(kept: str):
    assert check(history(*SOUND), **{kept: ["x"]}).broken()["unexpected"] == {"x"}


@pytest.mark.parametrize("answer", [[], [("unknown", "c", {})]])
def test_no_answer_and_seen_all_the_same_is_recovered(answer: list[Any]):
    report = check(history(*SOUND, ("invoked", "c", {}), *answer, ("effect", "c", {})))
    assert report.recovered == {"c"}
    assert not report.broken()


def test_no_answer_and_never_seen_is_no_loss():
    report = check(history(*SOUND, ("invoked", "c", {})))
    assert not report.recovered
    assert not report.broken()


def test_a_refusal_that_was_stored_is_not_called_recovered():
    assert not check(history(("invoked", "c", {}), ("failed", "c", {}), ("effect", "c", {}))).recovered


def test_an_effect_twice_is_a_duplicate():
    assert check(history(*SOUND, ("effect", "a", {}))).duplicates == {"a": 2}


def test_a_later_one_of_the_key_first_is_an_inversion():
    lines: list[tuple[What, str, dict[str, Any]]] = [
        ("effect", "b", {"position": "e-2", "key": "k"}),
        ("effect", "a", {"position": "e-1", "key": "k"}),
    ]
    assert check(history(*lines)).inversions == {"k": 1}


def test_other_keys_and_second_deliveries_are_no_inversions():
    lines: list[tuple[What, str, dict[str, Any]]] = [
        ("effect", "b", {"position": "e-2", "key": "k"}),
        ("effect", "a", {"position": "e-1", "key": "other"}),
        ("effect", "c", {"position": "e-10", "key": "k"}),
        ("effect", "b", {"position": "e-2", "key": "k"}),
    ]
    assert not check(history(*lines)).inversions


def test_order_is_that_of_the_clock_not_of_the_files():
    assert not check(list(reversed(history(*SOUND)))).inversions


def test_a_position_with_two_events_is_a_conflict():
    report = check(history(*SOUND, ("invoked", "c", {}), ("ok", "c", {"position": "e-2"}), ("effect", "c", {})))
    assert report.broken() == {"conflicts": {"b", "c"}}


def test_an_event_with_two_positions_is_a_conflict():
    assert check(history(("delivered", "a", {"position": "e-7"}), *SOUND)).broken() == {"conflicts": {"a"}}


def test_another_payload_than_was_published_is_altered():
    assert check(history(("delivered", "a", {"digest": "other"}), *SOUND)).broken() == {"altered": {"a"}}


def test_a_delivery_after_the_acknowledgement_is_told():
    assert check(history(*SOUND, ("delivered", "a", {}))).broken() == {"revived": {"a"}}


@pytest.mark.parametrize(("again", "dead"), [([("acked", "a", {})], []), ([], ["a"])])
def test_settled_for_good_twice_is_told(again: list[Any], dead: list[str]):
    assert check(history(*SOUND, *again), dead=dead).broken() == {"settled_twice": {"a"}}


def test_two_dead_letters_of_one_event_are_told():
    assert check(history(("invoked", "c", {}), ("ok", "c", {})), dead=["c", "c"]).settled_twice == {"c"}


def test_a_journal_is_read_line_by_line_as_it_grows(tmp_path):
    tail = Tail(tmp_path)
    with Journal(tmp_path / "one.jsonl", "one") as journal:
        journal.write("invoked", "a")
        assert [entry.id for entry in tail.entries()] == ["a"]
        journal.write("ok", "a", position="e-1")
    with (tmp_path / "two.jsonl").open("wb") as torn:
        torn.write(b'{"time":1.0,"process":"two","what":"invo')
    assert [(entry.what, entry.position) for entry in tail.entries()] == [("invoked", ""), ("ok", "e-1")]
    assert (
        [entry.what for entry in tail.entries("ok")] == [entry.what for entry in tail.entries("ok", id="a")] == ["ok"]
    )
    assert not tail.entries("ok", process="two")
    assert len(tail.entries("ok", "invoked", process="one")) == 2
