"""The topic grammar, compared with a definition of it that is plain enough to be believed."""

import pickle
import random
import time
from enum import Enum
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wowevent.errors import InvalidTopic
from wowevent.topic import (
    MAX_BYTES,
    Trie,
    check_pattern,
    check_topic,
    compile_pattern,
    is_reserved,
    matches,
    matches_any,
    matches_key,
)

# ------------------------------------------------------------------------------------------------ names

NOT_A_NAME = {
    "empty": "",
    "only a dot": ".",
    "dot first": ".a",
    "dot last": "a.",
    "two dots": "a..b",
    "blank": "a b",
    "blank around": " a ",
    "line feed at the end": "a\n",
    "CR LF": "a\r\nPUB x 0",
    "NUL": "a\0",
    "parent directory": "../../etc/passwd",
    "slash": "a/b",
    "dollar": "$SYS",
    "angle": "a.>",
    "plus": "+",
    "colon": "a:b",
    "umlaut": "ä",
    "Arabic digit": "٣",
    "fullwidth letter": "Ａ",  # noqa: RUF001 - that is the point
    "lone surrogate": "\ud800",
    "byte order mark": "\ufeffa",
    "201 bytes": "a" * 201,
    "256 bytes": "a" * 256,
    "number": 5,
    "bytes": b"a",
    "nothing": None,
}


@pytest.mark.parametrize("name", NOT_A_NAME.values(), ids=NOT_A_NAME.keys())
@pytest.mark.parametrize("check", [check_topic, check_pattern])
def test_what_is_neither_a_topic_nor_a_pattern(check, name: object):
    with pytest.raises(InvalidTopic) as caught:
        check(name)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "topic", ["a", "task.created", "_bus.x", "A-1.b_2.c", "-", "_", "0", "a" * 200, ".".join("a" * 100)]
)
def test_what_is_a_topic_is_a_pattern_too(topic: str):
    assert check_topic(topic) == check_pattern(topic) == topic


@pytest.mark.parametrize("pattern", ["*", "#", "a.*", "a.#", "*.a", "#.a", "a.*.b", "a.#.b.#", "_bus.*", "*.*", "#.#"])
def test_wildcards_stand_in_patterns_only(pattern: str):
    assert check_pattern(pattern) == pattern
    with pytest.raises(InvalidTopic):
        check_topic(pattern)


@pytest.mark.parametrize("pattern", ["task*", "**", "*a", "##", "a.#b", "a.**", "a.*.", "*#"])
def test_a_wildcard_is_a_whole_word(pattern: str):
    with pytest.raises(InvalidTopic):
        check_pattern(pattern)


class Names(str, Enum):  # noqa: UP042 - as users write them
    CREATED = "task.created"
    ALL = "task.*"


def test_a_name_out_of_an_enumeration_is_its_value_and_plain():
    assert type(check_topic(Names.CREATED)) is type(check_pattern(Names.ALL)) is str
    assert check_topic(Names.CREATED) == "task.created"
    assert check_pattern(Names.ALL) == "task.*"


@given(st.text(max_size=12))
def test_a_topic_is_words_joined_by_dots(text: str):
    legal = all(word and set(word) <= set(LETTERS) for word in text.split("."))
    try:
        assert check_topic(text) == text
        accepted = True
    except InvalidTopic:
        accepted = False
    assert accepted == legal


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

# ------------------------------------------------------------------------------------------------ matching, as a table

MATCHES = """
    *              a a.b a.b.c         | _bus _bus.x
    #              a a.b a.b.c         | _bus _bus.x
    task.*         task.a task.a.b     | task x.task _task.a
    task.#         task task.a task.a.b| tasks x.task
    *.a            b.a                 | a b.c.a _b.a
    #.a            a b.a b.c.a         | b a.b _b.a
    a.*.c          a.b.c               | a.c a.b.b.c a.b.c.d
    a.#.c          a.c a.b.c a.b.b.c   | a a.c.d
    *.*            a.b a.b.c           | a _a.b
    *.#            a a.b               | _a
    #.*            a a.b a.b.c         | _a _a.b
    a              a                   | b a.a A
    _bus.*         _bus.x _bus.x.y     | _bus bus.x _reply.x
    _bus.#         _bus _bus.x         | bus _bus2
    #.a.#.a.#      a.a b.a.b.a.b       | a b.a.b
"""

KEY_MATCHES = """
    *              a                   | a.b _bus
    task.*         task.a              | task task.a.b
    agent.*.normal agent.started.normal| agent.started.high agent.normal agent.a.b.normal
    task.*.#       task.a task.a.low   | task
    #              a a.b a.b.c         | _bus.x
    *.*.critical   a.b.critical        | a.critical _a.b.critical
    #.high         high a.b.high       | a.high.b
    _bus.#         _bus _bus.x.low     | bus.x
"""


def rows(table: str):
    for line in table.strip().splitlines():
        left, right = line.split("|")
        pattern, *yes = left.split()
        yield from (pytest.param(pattern, topic, True, id=f"{pattern} {topic}") for topic in yes)
        yield from (pytest.param(pattern, topic, False, id=f"{pattern} not {topic}") for topic in right.split())


@pytest.mark.parametrize(("pattern", "topic", "expected"), [*rows(MATCHES)])
def test_a_last_star_is_one_or_more_words(pattern: str, topic: str, expected: bool):
    assert matches(pattern, topic) is expected


@pytest.mark.parametrize(("pattern", "key", "expected"), [*rows(KEY_MATCHES)])
def test_in_amqp_style_a_star_is_always_one_word(pattern: str, key: str, expected: bool):
    assert matches_key(pattern, key) is expected


@pytest.mark.parametrize(
    ("pattern", "amqp", "words"),
    [
        ("task.*", False, ("task", "*", "#")),
        ("*", False, ("*", "#")),
        ("*.a", False, ("*", "a")),
        ("task.#", False, ("task", "#")),
        ("task.*", True, ("task", "*")),
    ],
)
def test_a_compiled_pattern_is_in_the_terms_of_amqp(pattern: str, amqp: bool, words: tuple[str, ...]):
    assert compile_pattern(pattern, amqp=amqp) == words


@pytest.mark.parametrize(
    "use",
    [compile_pattern, lambda p: matches(p, "a"), lambda p: Trie[int]().add(p, 1)],
    ids=["compile_pattern", "matches", "Trie.add"],
)
def test_a_bad_pattern_is_refused_wherever_it_comes_in(use):
    with pytest.raises(InvalidTopic):
        use("task*")


@pytest.mark.parametrize(("topic", "expected"), [("_bus.x", True), ("_", True), ("bus._x", False), ("a", False)])
def test_a_first_word_with_an_underscore_is_the_buss_own(topic: str, expected: bool):
    assert is_reserved(topic) is expected


# ------------------------------------------------------------------------------------------------ the oracle


def oracle(pattern: str, topic: str, *, amqp: bool = False) -> bool:
    """The grammar, word for word: what CONTRACT 3.2 says, and no faster than that."""
    words, names = pattern.split("."), topic.split(".")
    if names[0].startswith("_") and words[0] != names[0]:
        return False
    return _fits(words, names, amqp=amqp)


def _fits(words: list[str], names: list[str], *, amqp: bool) -> bool:
    if not words:
        return not names
    first, rest = words[0], words[1:]
    if first == "#":
        return any(_fits(rest, names[taken:], amqp=amqp) for taken in range(len(names) + 1))
    if first == "*" and not rest and not amqp:
        return len(names) >= 1
    return bool(names) and first in ("*", names[0]) and _fits(rest, names[1:], amqp=amqp)


# Few words, so that patterns and topics often meet.
WORDS = st.sampled_from(["a", "b", "_c"])
topics = st.lists(WORDS, min_size=1, max_size=6).map(".".join)
patterns = st.lists(WORDS | st.sampled_from(["*", "#"]), min_size=1, max_size=6).map(".".join)


@given(patterns, topics)
@example("#", "_c")
@example("#._c", "_c")
@example("*._c", "_c._c")
def test_matching_is_what_the_grammar_says(pattern: str, topic: str):
    assert matches(pattern, topic) is oracle(pattern, topic)
    assert matches_key(pattern, topic) is oracle(pattern, topic, amqp=True)


def test_matching_is_what_the_grammar_says_for_every_short_pattern_and_topic():
    for pattern in (".".join(words) for n in (1, 2, 3) for words in product("a_*#", repeat=n)):
        for topic in (".".join(words) for n in (1, 2, 3, 4) for words in product("a_", repeat=n)):
            assert matches(pattern, topic) is oracle(pattern, topic), (pattern, topic)
            assert matches_key(pattern, topic) is oracle(pattern, topic, amqp=True), (pattern, topic)


@given(st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=12), topics, st.booleans(), st.data())
def test_a_trie_finds_what_each_pattern_matches_and_forgets_what_is_removed(added, topic, amqp, data):
    trie: Trie[int] = Trie(amqp=amqp)
    for pattern, value in added:
        trie.add(pattern, value)
    removed = data.draw(st.lists(st.sampled_from(added), unique=True)) if added else []
    for pattern, value in removed:
        trie.remove(pattern, value)

    found = trie.match(topic)
    gone = {(compile_pattern(pattern, amqp=amqp), value) for pattern, value in removed}
    kept = {(pattern, value) for pattern, value in added if (compile_pattern(pattern, amqp=amqp), value) not in gone}
    assert set(found) == {value for pattern, value in kept if oracle(pattern, topic, amqp=amqp)}
    assert len(found) == len(set(found))


@given(st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=12), st.randoms(use_true_random=False))
def test_a_trie_from_which_all_is_removed_has_nothing_left_in_it(added, order: random.Random):
    trie: Trie[int] = Trie()
    for pattern, value in added:
        trie.add(pattern, value)
    order.shuffle(added)
    for pattern, value in added:
        trie.remove(pattern, value)
    assert pickle.dumps(trie) == pickle.dumps(Trie())


def test_removing_what_was_never_added_changes_nothing():
    trie: Trie[str] = Trie()
    trie.add("a.b", "one")
    before = pickle.dumps(trie)
    for pattern, value in [("a", "one"), ("a.b", "two"), ("a.b.c", "one"), ("x", "one"), ("*", "one")]:
        trie.remove(pattern, value)
    assert pickle.dumps(trie) == before


def test_a_value_found_by_several_patterns_is_found_once():
    trie: Trie[str] = Trie()
    for pattern in ("task.*", "#", "task.created", "*.created"):
        trie.add(pattern, "one")
    trie.add("task.created", "one")
    assert trie.match("task.created") == ["one"]
    for pattern in ("task.*", "#", "*.created"):
        trie.remove(pattern, "one")
    assert trie.match("task.created") == ["one"]


# ------------------------------------------------------------------------------------------------ cost

BOMBS = {
    "seven hashes": "#.#.#.#.#.#.#.x",
    "hashes only": ".".join("#" * 100),
    "hashes, then a word that is not there": ".".join("#" * 99) + ".x",
    "hash and word in turn": ".".join(["#", "a"] * 49) + ".x",
    "hash and star in turn": ".".join(["#", "*"] * 49) + ".x",
    "stars": ".".join("*" * 100),
}
LONGEST = ".".join("a" * (MAX_BYTES // 2))


@pytest.mark.parametrize("pattern", BOMBS.values(), ids=BOMBS.keys())
def test_no_pattern_is_a_bomb(pattern: str):
    matches(pattern, "a")  # compiled
    start = time.perf_counter()
    matches(pattern, LONGEST)
    matches_key(pattern, LONGEST)
    assert time.perf_counter() - start < 5  # what it guards against takes minutes


def test_finding_does_not_cost_by_what_is_stored():
    trie: Trie[int] = Trie()
    for number in range(20_000):
        trie.add(f"agent-{number}.*", number)
    start = time.perf_counter()
    for number in range(1_000):
        assert trie.match(f"agent-{number}.started") == [number]
    assert time.perf_counter() - start < 5  # by what is stored it would be 20,000,000 comparisons


def test_one_of_several_patterns_is_enough():
    assert matches_any(("task.*", "agent.x"), "agent.x")
    assert not matches_any(("task.*", "agent.x"), "agent.y")
    assert not matches_any((), "agent.y")
