"""Who wants what: the cached fold of the declarations, renewed when the server says that it is old."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from wowevent.broker import Subscription
from wowevent.routing import Routes, spec_of, subscription_of

_CACHE: Final = 1_000


class Target(Struct, frozen=True, gc=False):
    """A remembered subscription that an event goes to."""

    num: str
    lanes: bool
    lapsed: bool


def text_of(subscription: Subscription) -> str:
    """A declaration as the server keeps it: a line for the id, the rest in JSON."""
    return f"{subscription.id}\n{spec_of(subscription)}"


class Registry:
    """The declarations as of a version."""

    def __init__(self) -> None:
        self.version: str = "-1"
        self.removals: str = "-1"
        self.routes: Routes = Routes()
        self.nums: dict[str, str] = {}
        self._lapsed: set[str] = set()
        self._targets: dict[tuple[str, ...], tuple[Target, ...]] = {}

    def fold(self, answer: list[Any]) -> None:
        """Take in what the script `fold` found."""
        version, removals = answer[0].decode(), answer[1].decode()
        if removals != self.removals:
            self.routes, self.nums, self._lapsed = Routes(), {}, set()
        self.version, self.removals = version, removals
        self._targets.clear()
        for num, text, lapsed in zip(answer[2::3], answer[3::3], answer[4::3], strict=True):
            id, _, spec = text.decode().partition("\n")
            self.nums[id] = num.decode()
            self.routes.add(subscription_of(id, spec))
            (self._lapsed.add if lapsed == b"1" else self._lapsed.discard)(id)

    def targets(self, ids: tuple[str, ...]) -> tuple[Target, ...]:
        """The remembered ones among the subscriptions that an event matched."""
        found = self._targets.get(ids)
        if found is None:
            if len(self._targets) >= _CACHE:
                self._targets.clear()
            found = self._targets[ids] = tuple(
                Target(self.nums[id], not spec.exclusive, id in self._lapsed)
                for id in ids
                if (spec := self.routes.get(id)) is not None and spec.durable
            )
        return found
