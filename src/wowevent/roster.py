"""Who is there: what processes say of themselves, and what follows from it for agents. Pure.

    state      newest word of a process that stands for the agent
    online     less than 7.5 s ago
    suspect    less than 15 s ago; or none, though the engine says that somebody serves it
    offline    longer ago, or it said goodbye, or never heard of

Ages go by the hearer's own clock, from when it heard: clocks of machines are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from wowevent.broker import Subscription, SubscriptionInfo

ONLINE: Final = 7.5
"""Seconds of silence up to which an agent is online: one word may get lost."""
OFFLINE: Final = 15.0
"""Seconds of silence after which it is offline."""
_FORGOTTEN: Final = 3600.0  # seconds after which a silent process is known no longer; its agents are, as offline
_MOST_GONE: Final = 1_000  # agents of which only is known when they were there

State = Literal["online", "suspect", "offline"]


class Source(Struct, frozen=True, omit_defaults=True):
    """Whose events a process publishes, and on which topics, of late."""

    agent: str
    topics: tuple[str, ...] = ()
    ago: float = 0.0
    """Seconds since the last one, where the process publishes for others: that it is there says nothing of them."""


class Beat(Struct, frozen=True, omit_defaults=True):
    """What a process says of itself, all of it each time."""

    process: str
    host: str = ""
    pid: int = 0
    agents: tuple[str, ...] = ()
    """Those that are here: by the bus's name, by what it serves, and clients that are connected."""
    serves: tuple[str, ...] = ()
    """The ids of the subscriptions that it serves."""
    publishes: tuple[Source, ...] = ()
    gone: bool = False
    """It leaves."""

    @property
    def empty(self) -> bool:
        """Nobody is here."""
        return not (self.agents or self.serves or self.publishes)


class ProcessInfo(Struct, frozen=True):
    """One process that stands for an agent."""

    id: str
    """Made anew when it starts."""
    host: str
    pid: int
    state: State
    last_seen: float
    """When it was last heard of, Unix seconds."""
    serves: tuple[str, ...]
    """Which of the agent's subscriptions."""


class Served(Struct, frozen=True):
    """One subscription of an agent; a number is None where the engine cannot tell it."""

    id: str
    patterns: tuple[str, ...]
    durable: bool
    """False: it is live, nothing is kept for it."""
    consumers: int
    """Who fetches from it now, as the engine counts; 0: nobody serves it."""
    ready: int
    leased: int | None
    delayed: int | None
    dead: int
    lapsed: bool


class AgentInfo(Struct, frozen=True):
    """One agent: whether it is there, where, what it hears and what it says."""

    name: str
    state: State
    last_seen: float | None
    """When it was last heard of, Unix seconds; None: never, as far as is known here."""
    processes: tuple[ProcessInfo, ...]
    subscriptions: tuple[Served, ...]
    publishes: tuple[str, ...]
    """Topics on which it published of late, as far as the processes that are there know."""


def state_of(age: float) -> State:
    """What so many seconds of silence mean."""
    return "online" if age < ONLINE else "suspect" if age < OFFLINE else "offline"


class _Agent:
    """What is gathered of one."""

    def __init__(self) -> None:
        self.ages: dict[str, float] = {}  # by process
        self.topics: dict[str, None] = {}
        self.subscriptions: list[SubscriptionInfo] = []


class Roster:
    """What was heard, by whoever tells of `now`: monotonic seconds, each time."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, Beat]] = {}
        self._gone: dict[str, float] = {}  # agents, and when they were last there

    def hear(self, beat: Beat, now: float) -> None:
        """A process said this."""
        before = self._heard.pop(beat.process, None)
        if not beat.gone:
            self._heard[beat.process] = (now, beat)
        if before is not None:
            stays = {} if beat.gone else _stands_for(beat)
            self._part({name: ago for name, ago in _stands_for(before[1]).items() if name not in stays}, now)

    def agents(self, infos: Iterable[SubscriptionInfo], now: float, time: float) -> list[AgentInfo]:
        """Everybody, by name, with the engine's `infos`; `time` is now as well, in Unix seconds.

        A remembered subscription that belongs to no agent stands for itself, under its id.
        """
        self._forget(now)
        found: dict[str, _Agent] = {name: _Agent() for name in self._gone}
        for info in infos:
            if name := whose(info.subscription):
                found.setdefault(name, _Agent()).subscriptions.append(info)
        for at, beat in self._heard.values():
            for name, ago in _stands_for(beat).items():
                found.setdefault(name, _Agent()).ages[beat.process] = now - at + ago
            for source in beat.publishes:
                found[source.agent].topics.update(dict.fromkeys(source.topics))
        return [self._info(name, found[name], now, time) for name in sorted(found)]

    def _info(self, name: str, agent: _Agent, now: float, time: float) -> AgentInfo:
        ages = [*agent.ages.values()]
        if name in self._gone:
            ages.append(now - self._gone[name])
        served = any(info.consumers for info in agent.subscriptions)
        state = state_of(min(agent.ages.values())) if agent.ages else "suspect" if served and not ages else "offline"
        return AgentInfo(
            name=name,
            state=state,
            last_seen=time - min(ages) if ages else None,
            processes=tuple(self._process(id, age, time, agent) for id, age in sorted(agent.ages.items())),
            subscriptions=tuple(_served(info) for info in sorted(agent.subscriptions, key=_id)),
            publishes=tuple(sorted(agent.topics)),
        )

    def _process(self, id: str, age: float, time: float, agent: _Agent) -> ProcessInfo:
        beat = self._heard[id][1]
        serves = tuple(sorted({*map(_id, agent.subscriptions)} & {*beat.serves}))
        return ProcessInfo(id, beat.host, beat.pid, state_of(age), time - age, serves)

    def _forget(self, now: float) -> None:
        for id, (at, beat) in list(self._heard.items()):
            if now - at > _FORGOTTEN:
                del self._heard[id]
                self._part(_stands_for(beat), at)

    def _part(self, agents: dict[str, float], at: float) -> None:
        """Remember when they were there, so many seconds before; of very many, those that left last."""
        for name, ago in agents.items():
            self._gone.pop(name, None)
            self._gone[name] = at - ago
        while len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]


def whose(spec: Subscription) -> str:
    """The agent of a subscription; a remembered one without is its own, a live one nobody's."""
    return spec.agent or (spec.id if spec.durable else "")


def _stands_for(beat: Beat) -> dict[str, float]:
    """The agents that a process stands for, and how many seconds before its word they were there."""
    return {source.agent: source.ago for source in beat.publishes} | dict.fromkeys(beat.agents, 0.0)


def _id(info: SubscriptionInfo) -> str:
    return info.subscription.id


def _served(info: SubscriptionInfo) -> Served:
    spec = info.subscription
    return Served(
        id=spec.id,
        patterns=spec.patterns,
        durable=spec.durable,
        consumers=info.consumers,
        ready=info.ready,
        leased=info.leased,
        delayed=info.delayed,
        dead=info.dead,
        lapsed=info.lapsed,
    )
