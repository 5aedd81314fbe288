"""Topic grammar, and a trie that finds what subscribed to a topic.

A topic is words of `[A-Za-z0-9_-]` joined by dots, 200 bytes at most. In a pattern `*` is exactly one word, but as
the last word it is one or more (`task.*` is every task event, `*` is everything); `#` is zero or more words anywhere.
Topics whose first word starts with `_` belong to the bus: a pattern matches them only if it starts with that word.

AMQP style is for the blocking bus: there `*` is always exactly one word, and what is matched is the routing key
`{topic}.{band}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Generic, TypeVar

from wowevent.errors import InvalidTopic, shown

MAX_BYTES = 200

_WAYS: Final = 2_000  # how far two patterns are compared; those that people write have a few dozen

_TOPIC = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_PATTERN = re.compile(r"(?:[A-Za-z0-9_-]+|\*|#)(?:\.(?:[A-Za-z0-9_-]+|\*|#))*")

T = TypeVar("T")


@lru_cache(maxsize=8192)
def check_topic(topic: str) -> str:
    """The topic itself as a plain `str`, if it is one; InvalidTopic otherwise."""
    if not isinstance(topic, str) or len(topic) > MAX_BYTES or not _TOPIC.fullmatch(topic):
        raise InvalidTopic(
            f"{shown(topic)} is not a topic: words of letters, digits, '_' and '-' joined by dots, "
            f"{MAX_BYTES} bytes at most"
        )
    return str.__str__(topic)  # str() of a member of an enumeration would be its Python name


@lru_cache(maxsize=8192)
def check_pattern(pattern: str) -> str:
    """The pattern itself as a plain `str`, if it is one; InvalidTopic otherwise (`task*` and `**` are not)."""
    if not isinstance(pattern, str) or len(pattern) > MAX_BYTES or not _PATTERN.fullmatch(pattern):
        raise InvalidTopic(
            f"{shown(pattern)} is not a pattern: the words of a topic, '*' for one word (one or more at the end), "
            f"'#' for any number, {MAX_BYTES} bytes at most"
        )
    return str.__str__(pattern)


def is_reserved(topic: str) -> bool:
    """True for the bus's own topics, whose first word starts with `_`, and for the patterns that match them."""
    return topic.startswith("_")


def reserved(topic: str) -> InvalidTopic:
    """The error for who would publish to such a one."""
    return InvalidTopic(f"{topic!r}: topics whose first word starts with '_' are the bus's own")


def matches(pattern: str, topic: str) -> bool:
    """Whether `pattern` matches `topic`, which must be valid."""
    return bool(_alone(pattern, amqp=False).match(topic))


@lru_cache(maxsize=8192)
def matches_any(patterns: tuple[str, ...], topic: str) -> bool:
    """Whether one of `patterns` matches `topic`; remembered, since readers ask for every event."""
    return any(matches(pattern, topic) for pattern in patterns)


@lru_cache(maxsize=8192)
def covers(granted: str, wanted: str) -> bool:
    """Whether `granted` matches every topic that `wanted` matches.

    Both walk at once over what a topic could be, word by word. A word that `wanted` leaves open is taken as one that
    nobody named, which only a `*` or `#` of `granted` matches. Where `wanted` may end, `granted` has to be able to. A
    pair with more than `_WAYS` ways to walk was made to keep us busy: not covered.
    """
    if is_reserved(granted) != is_reserved(wanted):
        return False
    rights, wishes = compile_pattern(granted), compile_pattern(wanted)
    start = (0, _standing(rights, {0}))
    todo = [way for word, way in _ways(rights, wishes, start) if is_reserved(word) <= is_reserved(wanted)]
    seen = set(todo)
    while todo and len(seen) <= _WAYS:
        at, places = todo.pop()
        if len(wishes) in _standing(wishes, {at}) and len(rights) not in places:
            return False
        ahead = {way for _, way in _ways(rights, wishes, (at, places))} - seen
        seen |= ahead
        todo.extend(ahead)
    return not todo


_Way = tuple[int, frozenset[int]]  # where one pattern stands, and where the other may stand


def _ways(rights: tuple[str, ...], wishes: tuple[str, ...], way: _Way) -> Iterator[tuple[str, _Way]]:
    """One word further: the word, empty where it is left open, and where both stand behind it."""
    at, places = way
    for place in _standing(wishes, {at}) - {len(wishes)}:
        word = "" if wishes[place] in {"*", "#"} else wishes[place]
        ahead = {each + (rights[each] != "#") for each in places - {len(rights)} if rights[each] in {word, "*", "#"}}
        yield word, (place + (wishes[place] != "#"), _standing(rights, ahead))


def _standing(words: tuple[str, ...], places: set[int]) -> frozenset[int]:
    """These places, and those behind every `#` that follows them, since `#` may be no word at all."""
    found = set[int]()
    for place in places:
        found.add(place)
        while place < len(words) and words[place] == "#":
            place += 1  # noqa: PLW2901 - it walks on
            found.add(place)
    return frozenset(found)


def matches_key(pattern: str, key: str) -> bool:
    """Whether an AMQP-style `pattern` matches the routing key `key`, which must be valid."""
    return bool(_alone(pattern, amqp=True).match(key))


@lru_cache(maxsize=8192)
def _alone(pattern: str, *, amqp: bool) -> Trie[None]:
    """A trie of this pattern only: there is one way to match."""
    trie: Trie[None] = Trie(amqp=amqp)
    trie.add(pattern, None)
    return trie


@lru_cache(maxsize=8192)
def compile_pattern(pattern: str, *, amqp: bool = False) -> tuple[str, ...]:
    """The words of a pattern in AMQP's terms: unless it is AMQP style already, a last `*` becomes `*`, `#`."""
    words = check_pattern(pattern).split(".")
    if not amqp and words[-1] == "*":
        words.append("#")
    return tuple(words)


class _Node(Generic[T]):
    """What follows one word of a pattern. A node behind `#` stays where it is, whatever word comes."""

    __slots__ = ("children", "stays", "values")

    def __init__(self, *, stays: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}  # a set that keeps the order of insertion
        self.stays = stays


class Trie(Generic[T]):
    """Patterns to values. Finding costs by the words of the topic and by what matches, not by what is stored."""

    def __init__(self, *, amqp: bool = False) -> None:
        """`amqp=True` makes a last `*` exactly one word."""
        self._amqp = amqp
        self._root: _Node[T] = _Node()
        self._reserved_root: _Node[T] = _Node()  # patterns that name a reserved first word, which alone match it

    def add(self, pattern: str, value: T) -> None:
        """Let `value` be found by the topics that `pattern` matches; adding twice is adding once.

        Patterns that say the same in other words, as `a.*` and `a.*.#` do, are one.
        """
        node = self._root_for(pattern)
        for word in compile_pattern(pattern, amqp=self._amqp):
            if word not in node.children:
                node.children[word] = _Node(stays=word == "#")
            node = node.children[word]
        node.values[value] = None

    def remove(self, pattern: str, value: T) -> None:
        """Undo `add`; unknown pairs are ignored. Branches that lead nowhere are cut."""
        node = self._root_for(pattern)
        path: list[tuple[_Node[T], str]] = []
        for word in compile_pattern(pattern, amqp=self._amqp):
            if word not in node.children:
                return
            path.append((node, word))
            node = node.children[word]
        node.values.pop(value, None)
        while path and not node.values and not node.children:
            node, word = path.pop()
            del node.children[word]

    def match(self, topic: str) -> list[T]:
        """The values whose pattern matches `topic`, each once.

        All patterns walk together, word by word, so that none can make another wait: `at` is where they stand. A node
        stands there once, however many ways lead to it, so a pattern of many `#` costs no more than its length.
        """
        at: dict[_Node[T], None] = {}
        _enter(self._root_for(topic), at)
        for word in topic.split("."):
            before, at = at, {}
            for node in before:
                if node.stays:
                    _enter(node, at)
                if child := node.children.get(word):
                    _enter(child, at)
                if child := node.children.get("*"):
                    _enter(child, at)
        found: dict[T, None] = {}
        for node in at:
            found.update(node.values)
        return list(found)

    def _root_for(self, name: str) -> _Node[T]:
        return self._reserved_root if is_reserved(name) else self._root


def _enter(node: _Node[T], at: dict[_Node[T], None]) -> None:
    """Stand at `node`, and behind every `#` that follows it, since `#` may be no word at all."""
    next_one: _Node[T] | None = node
    while next_one is not None and next_one not in at:
        at[next_one] = None
        next_one = next_one.children.get("#")
