"""What somebody may know of, by HTTP and by MCP alike; pure. None is where nobody is asked for a token: all of it.

What may not be seen is not there: who asks cannot tell the one from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from msgspec import structs

from wowevent.access.rights import Identity
from wowevent.broker import DeadLetter, SubscriptionInfo
from wowevent.conversation import Found, unknown
from wowevent.errors import NotPermitted, SubscriptionNotFound, shown
from wowevent.event import Event
from wowevent.roster import AgentInfo
from wowevent.schedule import ScheduleInfo
from wowevent.storm import Storm


def administers(identity: Identity | None) -> bool:
    """Whether all is theirs to know, but for events and dead letters: those are granted by topic."""
    return identity is None or identity.may("admin")


def sees_event(identity: Identity | None, right: str, event: Event) -> bool:
    """An event by its topic, under that right, and by whom it is for."""
    if identity is None:
        return True
    mine = event.target_agent in {None, identity.name} or identity.may("admin")
    return mine and identity.may(right, event.topic)


def sees_letters(identity: Identity | None, *topics: str) -> bool:
    """Dead letters of these topics, or patterns; of all without one."""
    return identity is None or identity.may("dead_letters", *topics)


def sees_letter(identity: Identity | None, letter: DeadLetter) -> bool:
    """A dead letter by its topic, whoever the event was for: that one could not handle it."""
    return sees_letters(identity, letter.event.topic)


def letters_seen(identity: Identity | None) -> Callable[[DeadLetter], bool] | None:
    """Whether a dead letter may be seen; None: all of them."""
    return None if sees_letters(identity) else partial(sees_letter, identity)


def sees_subscription(identity: Identity | None, info: SubscriptionInfo) -> bool:
    """A subscription: who may hear all that it hears, and who administers."""
    return identity is None or identity.may("admin") or identity.may("subscribe", *info.subscription.patterns)


def sees_storm(identity: Identity | None, storm: Storm) -> bool:
    """A parked conversation: who may see the dead letters of its whole path, and who administers."""
    return administers(identity) or sees_letters(identity, *{step.topic for step in storm.path})


def sees_schedule(identity: Identity | None, info: ScheduleInfo) -> bool:
    """A schedule: who fires by it, as long as they may publish there, and who administers."""
    if identity is None or identity.may("admin"):
        return True
    return info.event.source_agent == identity.name and identity.may("publish", info.event.topic)


def check_replaceable(identity: Identity | None, infos: Iterable[ScheduleInfo], name: str) -> None:
    """NotPermitted where a schedule of that name is another's."""
    if any(each.name == name and not sees_schedule(identity, each) for each in infos):
        raise NotPermitted(f"the schedule {shown(name)} is another agent's; replacing it needs admin")


def _seen_agent(identity: Identity | None, info: AgentInfo) -> AgentInfo | None:
    """An agent: of oneself all; of others what may be heard, and not where they run; None where that is nothing."""
    if identity is None or identity.may("admin") or info.name == identity.name:
        return info
    subscriptions = tuple(each for each in info.subscriptions if identity.may("subscribe", *each.patterns))
    publishes = tuple(topic for topic in info.publishes if identity.may("subscribe", topic))
    if not subscriptions and not publishes:
        return None
    return structs.replace(info, processes=(), subscriptions=subscriptions, publishes=publishes)


def seen_agents(identity: Identity | None, infos: Iterable[AgentInfo]) -> list[AgentInfo]:
    """The agents that somebody may know of, each as far as that goes."""
    return [seen for info in infos if (seen := _seen_agent(identity, info)) is not None]


def seen_conversation(identity: Identity | None, found: Found, asked: str) -> Found:
    """A conversation: its events under `replay`; a dead letter who may see those of its topic, too.

    Raises ConversationNotFound where that is nothing; it says the id that was asked for, not to which one that led.
    """
    stored = [each for each in found.stored if sees_event(identity, "replay", each.event)]
    letters = [each for each in found.letters if sees_event(identity, "replay", each.event)]
    letters = [each for each in letters if sees_letter(identity, each)]
    if not stored and not letters:
        raise unknown(asked)
    return structs.replace(found, stored=stored, letters=letters)


def check_named(identity: Identity | None, infos: Iterable[SubscriptionInfo], name: str) -> None:
    """SubscriptionNotFound unless there is one of that name, or of that agent, whose dead letters may be seen.

    A misspelt name has no letters, and must not look as if all were well.
    """
    for spec in (info.subscription for info in infos):
        if name and name in {spec.id, spec.agent} and sees_letters(identity, *spec.patterns):
            return
    raise SubscriptionNotFound(f"no subscription or agent {shown(name)} is known")
