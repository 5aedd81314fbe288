"""Whether one pattern lies within another, held against every topic there is; and what an identity may do."""

import itertools
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent.access.rights import Identity, Limits, check_grants, check_limits
from wowevent.errors import NotPermitted
from wowevent.topic import covers, matches

ALPHABET = ("a", "b", "_r", "x")
"""`x` stands for every word that no pattern names."""
LONGEST = 6
TOPICS = [".".join(words) for count in range(1, LONGEST + 1) for words in itertools.product(ALPHABET, repeat=count)]
WORDS = ("a", "b", "_r", "*", "#")


def language(pattern: str) -> re.Pattern[str]:
    """The topics of a pattern, by the words of the contract and none of ours: a regular expression."""
    words = pattern.split(".")
    parts = []
    for number, word in enumerate(words):
        if word == "#":
            parts.append(r"(?:\.[^.]+)*")
        elif word == "*":
            parts.append(r"(?:\.[^.]+)+" if number == len(words) - 1 else r"\.[^.]+")
        else:
            parts.append(rf"\.{word}")
    return re.compile("".join(parts))


def within(granted: str, wanted: str) -> bool:
    """By looking at every topic of up to six words: more than patterns of three can tell apart."""
    rights, wishes = language(granted), language(wanted)

    def of(pattern: str, expression: re.Pattern[str], topic: str) -> bool:
        return topic.startswith("_") == pattern.startswith("_") and bool(expression.fullmatch(f".{topic}"))

    return all(of(granted, rights, topic) for topic in TOPICS if of(wanted, wishes, topic))


def pairs(count: int) -> dict[tuple[str, str], None]:
    dice = random.Random(8)
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        granted, wanted = (".".join(dice.choices(WORDS, k=dice.randint(1, 3))) for _ in range(2))
        found[granted, wanted] = None
    return found


def test_it_is_exactly_what_every_topic_says() -> None:
    yes = 0
    for granted, wanted in pairs(5_000):
        truth = within(granted, wanted)
        assert covers(granted, wanted) == truth, (granted, wanted)
        yes += truth
    assert yes > 300, "both answers are asked for"


@pytest.mark.parametrize(
    ("granted", "wanted", "answer"),
    [
        ("#", "#", True),
        ("*", "#", True),  # a topic has a word
        ("#", "_live.x", False),
        ("_live.#", "_live.x", True),
        ("#", "_live.#", False),
        ("_live.#", "#", False),
        ("task.*", "task.#", False),
        ("task.#", "task.*", True),
        ("task.*", "task.*.done", True),
        ("task.*.done", "task.*", False),
        ("task.created", "task.created.high", False),
        ("*.#._r", "#._r", True),  # `_r` alone is reserved, so there always is a word before it
        ("#.a.#", "b.a.*.c", True),
        ("a.#.b.#.c", "a.#.c", False),
        ("a.#.*", "a.*.#", True),
        ("*.*", "#.#", False),
    ],
)
def test_pairs_that_are_easily_got_wrong(granted: str, wanted: str, answer: bool) -> None:
    assert covers(granted, wanted) is answer


patterns = st.lists(st.sampled_from((*WORDS, "c")), min_size=1, max_size=6).map(".".join)
topics = st.lists(st.sampled_from((*ALPHABET, "c")), min_size=1, max_size=8).map(".".join)


@given(patterns, patterns, topics)
def test_what_lies_within_matches_nothing_more(granted: str, wanted: str, topic: str) -> None:
    if covers(granted, wanted) and matches(wanted, topic):
        assert matches(granted, topic)


@given(patterns)
def test_a_pattern_lies_within_itself(pattern: str) -> None:
    assert covers(pattern, pattern)


@given(patterns, topics)
def test_a_topic_lies_within_what_matches_it(pattern: str, topic: str) -> None:
    assert covers(pattern, topic) == matches(pattern, topic)


@given(patterns, patterns, patterns)
def test_within_what_lies_within(a: str, b: str, c: str) -> None:
    if covers(a, b) and covers(b, c):
        assert covers(a, c)


def test_a_pattern_that_is_made_to_keep_us_busy_is_refused_soon() -> None:
    granted = ".".join(["#", "a", *["*"] * 24, "#"])  # where each `a` was, of the last 24 words: 2**24 ways to stand
    wanted = ".".join(["#.a"] * 24 + ["x"] * 24)
    began = time.perf_counter()

    assert not covers(granted, wanted), "it does lie within, but to find out takes too long"
    assert time.perf_counter() - began < 2


WORKER = Identity("worker", "1", grants={"publish": ("task.*", "log"), "admin": ("#",)})


def test_each_wanted_pattern_lies_within_one_that_is_granted() -> None:
    assert WORKER.may("publish", "task.created", "log", "task.*")
    assert not WORKER.may("publish", "task.created", "other")
    assert not WORKER.may("subscribe", "task.created"), "a right is granted by itself"
    assert not WORKER.may("publish", "_live.x")


def test_no_pattern_is_everything() -> None:
    assert WORKER.may("admin")
    assert not WORKER.may("publish")
    assert not WORKER.may("subscribe")


def test_a_refusal_names_the_right_and_the_pattern() -> None:
    with pytest.raises(NotPermitted, match=r"publish on 'other\.\*'"):
        WORKER.check("publish", "task.created", "other.*")
    with pytest.raises(NotPermitted, match="replay on '#'"):
        WORKER.check("replay")
    WORKER.check("publish", "task.created")


@pytest.mark.parametrize(
    ("grants", "says"),
    [
        ({"everything": ["#"]}, "'everything' is not a right"),
        ({"publish": ["task*"]}, "publish: 'task\\*' is not a pattern"),
        ({"publish": [""]}, "publish: '' is not a pattern"),
        ({"admin": ["task.*"]}, "admin is for all or nothing"),
    ],
)
def test_what_cannot_be_granted(grants: dict[str, list[str]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_grants(grants)


@pytest.mark.parametrize(
    "limits", [Limits(events="many"), Limits(requests="0/s"), Limits(clients=0), Limits(subscriptions=-1)]
)
def test_what_is_no_limit(limits: Limits) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of them is wrong
        check_limits(limits)
