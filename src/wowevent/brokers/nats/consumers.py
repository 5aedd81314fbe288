"""The consumers that a subscription has on the server: what they are to be, and that they are so.

Two on the log, one for each lane; three more on what comes once more, when there is something. What is not there, or is
of another kind, is made anew: what the one before gave cannot be settled any more, and may come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from msgspec import structs

from wowevent.broker import Subscription
from wowevent.brokers.nats.control import Control
from wowevent.brokers.nats.faults import NO_CONSUMER, OTHER_CONSUMER, code_of
from wowevent.brokers.nats.lanes import AGAIN, LOG, SOURCES
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.names import Names, distinct
from wowevent.brokers.nats.registry import Known, remade
from wowevent.errors import BrokerError, BrokerUnavailable
from wowevent.log import logger

_LEAST: Final = 12.0  # seconds for which a message is ours at least, if nothing is heard of us
_MARGIN: Final = 2.0  # seconds by which the server waits longer than a lease lasts


def patience(lease: float) -> float:
    """For how many seconds the server takes a message to be ours that it hears nothing of."""
    return max(lease + _MARGIN, _LEAST)


def unread(state: dict[str, Any], known: Known, head: int) -> int:
    """The first sequence that a consumer of the log, by what the server says of it, may not have settled."""
    first = max(known.begins, known.done + 1)
    if not state:  # it is not there
        return first
    if state.get("num_pending") or state.get("num_ack_pending"):
        return max(first, int(state["ack_floor"]["stream_seq"]) + 1)
    return head + 1


def consumers(names: Names, specs: Sequence[Subscription], known: Known) -> list[tuple[str, dict[str, Any]]]:
    """The consumers that a subscription has: stream and configuration of each."""
    newest = specs[-1]
    common = {
        "ack_policy": "explicit",
        "ack_wait": int(patience(newest.lease) * 1e9),
        "max_deliver": -1,
        "max_ack_pending": -1,
    }
    first = max(known.begins, known.done + 1)
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": first}
    found: list[tuple[str, dict[str, Any]]] = []
    for lane in LOG:
        wanted: set[str] = set()
        for spec in specs:
            if not (spec.exclusive and lane == "u"):
                wanted |= names.filters(spec, lane)
        if wanted:
            found.append((names.log, {**common, **start, **_named(names, known.id, lane, distinct(wanted))}))
    if known.again:
        for source in AGAIN:
            subject = names.once_more(known.id, source[-1])
            config = {"deliver_policy": "all", **_named(names, known.id, source, [subject])}
            found.append((names.again, {**common, **config}))
    return found


def _named(names: Names, id: str, source: str, subjects: list[str]) -> dict[str, Any]:
    name = names.consumer(id, source)
    return {"name": name, "durable_name": name, "filter_subjects": subjects}


Wanted = tuple[str, dict[str, Any]]
"""A consumer that is to be: its stream, and its configuration."""


class Consumers:
    """Of one namespace, by one link."""

    def __init__(self, link: Link, names: Names, control: Control, look: Callable[[], Awaitable[None]]) -> None:
        """`look` raises if a stream is not the one that was joined."""
        self._link = link
        self._names = names
        self._control = control
        self._look = look

    def wanted(self, known: Known, *, of_log: bool = False) -> list[Wanted]:
        """Those that a subscription is to have now, or those of them on the log; none if it lapsed."""
        if known.lapsed:
            return []
        every = consumers(self._names, self._control.registry.specs(known.id), known)
        return [each for each in every if not of_log or each[0] == self._names.log]

    async def change(self, id: str, change: Callable[[Known | None], Known | None]) -> None:
        """What is known of a subscription, and its consumers so."""
        await self._control.change(id, change)
        await self.make(id)

    async def make(self, id: str, *, again: bool = False) -> None:
        """The consumers of a subscription, as it is known now. Those that are there become so."""
        known = self._control.registry.known.get(id)
        if known is None:
            return
        if again:
            known = structs.replace(known, again=True)
        for stream, config in self.wanted(known):
            await self._make(id, stream, config)

    async def _make(self, id: str, stream: str, config: dict[str, Any]) -> None:
        """Have it. One of that name that cannot become so gives way."""
        if await self._create(stream, config):
            return
        found = (await self.state(stream, config["name"])).get("config", {})
        begins = int(found.get("opt_start_seq", 0))
        ours = begins <= config.get("opt_start_seq", 0) and _is_alike(found, config)
        if ours and await self._create(stream, {**config, "opt_start_seq": begins}):
            return  # what is before is not wanted again
        await self._delete(stream, config["name"])  # it is one of another life, or a stranger's
        await self._made_anew(id, [config["name"]])
        if not await self._create(stream, config):
            raise BrokerUnavailable(f"nats: consumer {config['name']} is made by others all the time")

    async def _create(self, stream: str, config: dict[str, Any]) -> bool:
        """Have it so; False if one is there that cannot become so."""
        try:
            await self._link.ask(f"CONSUMER.CREATE.{stream}.{config['name']}", stream_name=stream, config=config)
        except BrokerError as error:
            if code_of(error) not in OTHER_CONSUMER:
                raise
            return False
        return True

    async def _delete(self, stream: str, name: str) -> None:
        try:
            await self._link.ask(f"CONSUMER.DELETE.{stream}.{name}")
        except BrokerError as error:
            if code_of(error) != NO_CONSUMER:
                raise

    async def _made_anew(self, id: str, names: Sequence[str]) -> None:
        """All know that what those gave is with nobody."""
        logger.warning("a consumer had to be made anew: events may come again", subscription=id, consumers=names)
        sources = [source for source in SOURCES if self._names.consumer(id, source) in names]
        await self._control.change(id, lambda known: None if known is None else remade(known, sources))

    async def mend(self, id: str) -> None:
        """A consumer of it did not answer: somebody deleted it, or its stream, or is about to make it."""
        await self._control.sync()
        known = self._control.registry.known.get(id)
        if known is None or known.lapsed:
            return
        await self._look()
        wanted = self.wanted(known)
        missing = [each for each, state in zip(wanted, await self.states(wanted), strict=True) if not state]
        gone = [config["name"] for stream, config in missing if not await self.state(stream, config["name"])]
        if gone:
            await self._made_anew(id, gone)
        for stream, config in missing:
            await self._make(id, stream, config)

    async def unmake(self, id: str) -> None:
        """They are gone, and what waited for them."""
        for source in SOURCES:
            await self._delete(
                self._names.again if source in AGAIN else self._names.log, self._names.consumer(id, source)
            )
        await self._link.ask(f"STREAM.PURGE.{self._names.again}", filter=self._names.once_more(id, "*"))

    async def again(self, id: str) -> None:
        """Something comes to it once more: there are consumers for that."""
        known = self._control.registry.known.get(id)
        if known is not None and not known.again:
            await self.make(id, again=True)  # before others know, who would ask for it
            await self._control.note(id, again=True)

    async def state(self, stream: str, name: str) -> dict[str, Any]:
        """A consumer's numbers; nothing if it is not there."""
        try:
            return await self._link.ask(f"CONSUMER.INFO.{stream}.{name}")
        except BrokerError as error:
            if code_of(error) != NO_CONSUMER:
                raise
            return {}

    async def states(
        self, wanted: Sequence[Wanted], seen: Mapping[str, dict[str, Any]] = MappingProxyType({})
    ) -> list[dict[str, Any]]:
        """Of each of these; nothing if it is not there, or is of another kind: what that says is of no subscription.

        What was `seen` is not asked for.
        """
        unseen = [(stream, config["name"]) for stream, config in wanted if config["name"] not in seen]
        states = await asyncio.gather(*(self.state(stream, name) for stream, name in unseen))
        asked = {name: state for (_, name), state in zip(unseen, states, strict=True)}
        found = [(asked.get(config["name"]) or seen.get(config["name"], {}), config) for _, config in wanted]
        return [state if state and _is_alike(state["config"], config) else {} for state, config in found]

    async def all(self) -> dict[str, dict[str, Any]]:
        """The numbers of those that are there, by name. Not in a cluster, where that waits for nodes that are gone."""
        found: dict[str, dict[str, Any]] = {}
        for stream in () if self._link.cluster else (self._names.log, self._names.again):
            at, total = 0, 1
            while at < total:
                page = await self._link.ask(f"CONSUMER.LIST.{stream}", offset=at)
                states = page.get("consumers") or ()
                found.update((state["name"], _brief(state)) for state in states)
                at, total = at + len(states), int(page["total"]) if states else 0
        return found


def _brief(state: dict[str, Any]) -> dict[str, Any]:
    """What is counted, and what tells that it is ours: of thousands no more is kept."""
    config = {field: state["config"].get(field) for field in _FIXED}
    return {"num_pending": state["num_pending"], "num_ack_pending": state["num_ack_pending"], "config": config}


_FIXED: Final = ("ack_policy", "deliver_policy", "deliver_subject")  # what nobody can change of a consumer


def _is_alike(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(found.get(field) == wanted.get(field) for field in _FIXED)
