"""What the loop asks of the writer thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from wowevent.broker import Appended
    from wowevent.brokers.sqlite.store import Store
    from wowevent.event import Event


class Call:
    """A step of a transaction, with its answer."""

    __slots__ = ("after_fetches", "future", "run", "weight")

    def __init__(
        self, future: asyncio.Future[Any], run: Callable[[Store], Any], weight: int = 1, *, after_fetches: bool = False
    ) -> None:
        """`weight` is how many events it is about; unless `after_fetches`, it overtakes the fetches of its group."""
        self.future: asyncio.Future[Any] = future
        self.run: Callable[[Store], Any] = run
        self.weight: int = weight
        self.after_fetches: bool = after_fetches


class Publish:
    """Events to append; many such jobs become one insert, and a large one is spread over several transactions."""

    __slots__ = ("events", "future", "results")

    def __init__(self, future: asyncio.Future[Any], events: Sequence[Event]) -> None:
        self.future: asyncio.Future[Any] = future
        self.events: Sequence[Event] = events
        self.results: list[Appended] = []

    @property
    def weight(self) -> int:
        """How many are not stored yet."""
        return len(self.events) - len(self.results)


class Fetch:
    """A fetch; one that finds nothing may be parked, and then knows the number of its subscription."""

    __slots__ = ("future", "id", "limit", "num", "waits", "weight")

    def __init__(self, future: asyncio.Future[Any], id: str, limit: int, *, waits: bool) -> None:
        """`waits`: it may be parked."""
        self.future: asyncio.Future[Any] = future
        self.id: str = id
        self.limit: int = limit
        self.waits: bool = waits
        self.num: int | None = None
        self.weight: int = limit


class GiveUp:
    """A parked fetch has waited long enough."""

    __slots__ = ("fetch",)
    weight = 0

    def __init__(self, fetch: Fetch) -> None:
        self.fetch: Fetch = fetch


class Look:
    """Look again for these subscriptions; None: look whether another process changed anything."""

    __slots__ = ("nums",)
    weight = 0

    def __init__(self, nums: set[int] | None) -> None:
        self.nums: set[int] | None = nums


class Close:
    """The last job."""

    __slots__ = ()
    weight = 0


Job = Call | Publish | Fetch
Item = Job | GiveUp | Look | Close
Outcome = tuple[Job, Any, BaseException | None]
