"""What somebody may know of, as a table: each rule with what it grants and what it hides."""

from datetime import UTC, datetime

import pytest

from wowevent import Event
from wowevent.access import sight
from wowevent.access.rights import Identity
from wowevent.broker import DeadLetter, Position, Reason, Stored, Subscription, SubscriptionInfo
from wowevent.conversation import Found
from wowevent.errors import ConversationNotFound, NotPermitted, SubscriptionNotFound
from wowevent.roster import AgentInfo, ProcessInfo, Served
from wowevent.schedule import ScheduleInfo
from wowevent.storm import Step, Storm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADMIN = Identity("boss", "1", grants={"admin": ("#",)})
NOBODY = Identity("worker", "2")


def may(name: str = "worker", **grants: str) -> Identity:
    """Somebody with one pattern a right."""
    return Identity(name, "3", grants={right: (pattern,) for right, pattern in grants.items()})


def subscription(*patterns: str, agent: str = "clerk") -> SubscriptionInfo:
    return SubscriptionInfo(subscription=Subscription(id="bills", patterns=patterns, agent=agent))


def letter(topic: str, target: str | None = None) -> DeadLetter:
    event = Event(topic=topic, target_agent=target)
    return DeadLetter(
        id="1", event=event, subscription="bills", reason=Reason.REJECTED, error="", traceback="", attempts=(), time=0.0
    )


def storm(*topics: str) -> Storm:
    path = tuple(Step("bills", topic, 3) for topic in topics)
    return Storm(id="1", correlation_id="1", limit="max_visits", most=2, path=path, since=0.0, who="bills")


def schedule(topic: str, source: str) -> ScheduleInfo:
    event = Event(topic=topic, source_agent=source)
    return ScheduleInfo(
        name="nightly", event=event, every=60.0, cron=None, tz="UTC", start=None, until=None, added=NOW, next=NOW,
        last=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("identity", "target", "seen"),
    [
        (None, "other", True),
        (may(replay="bill.*"), None, True),
        (may(replay="bill.*"), "worker", True),
        (may(replay="bill.*"), "other", False),
        (may(replay="bill.*", admin="#"), "other", True),
        (may(replay="order.*"), None, False),
        (may(subscribe="bill.*"), None, False),
        (ADMIN, None, False),
    ],
)
def test_an_event_is_seen_by_its_topic_and_by_whom_it_is_for(
    identity: Identity | None, target: str | None, seen: bool
) -> None:
    assert sight.sees_event(identity, "replay", Event(topic="bill.sent", target_agent=target)) is seen


@pytest.mark.parametrize(
    ("identity", "seen"),
    [
        (None, True),
        (may(dead_letters="bill.*"), True),
        (may(dead_letters="order.*"), False),
        (ADMIN, False),
    ],
)
def test_a_dead_letter_is_seen_by_its_topic_whoever_it_was_for(identity: Identity | None, seen: bool) -> None:
    assert sight.sees_letter(identity, letter("bill.sent", target="other")) is seen


@pytest.mark.parametrize(
    ("identity", "seen"),
    [
        (None, True),
        (ADMIN, True),
        (may(subscribe="#"), True),
        (may(subscribe="bill.*"), False),
        (may(dead_letters="#"), False),
    ],
)
def test_a_subscription_is_seen_by_who_may_hear_all_of_it(identity: Identity | None, seen: bool) -> None:
    assert sight.sees_subscription(identity, subscription("bill.*", "order.*")) is seen


@pytest.mark.parametrize(
    ("identity", "seen"),
    [
        (None, True),
        (ADMIN, True),
        (may(dead_letters="#"), True),
        (may(dead_letters="bill.*"), False),
        (may(subscribe="#"), False),
    ],
)
def test_a_storm_is_seen_by_who_may_see_the_letters_of_its_whole_path(identity: Identity | None, seen: bool) -> None:
    assert sight.sees_storm(identity, storm("bill.sent", "order.paid")) is seen


@pytest.mark.parametrize(
    ("identity", "seen"),
    [
        (None, True),
        (ADMIN, True),
        (may(publish="bill.*"), True),
        (may("other", publish="bill.*"), False),
        (may(publish="order.*"), False),
    ],
)
def test_a_schedule_is_seen_and_replaced_by_who_fires_it(identity: Identity | None, seen: bool) -> None:
    known = [schedule("bill.due", "worker")]
    assert sight.sees_schedule(identity, known[0]) is seen
    sight.check_replaceable(identity, known, "hourly")
    if seen:
        sight.check_replaceable(identity, known, "nightly")
        return
    with pytest.raises(NotPermitted, match="another agent's"):
        sight.check_replaceable(identity, known, "nightly")


def test_of_another_agent_is_seen_what_may_be_heard_and_not_where_it_runs() -> None:
    process = ProcessInfo(id="p", host="here", pid=1, state="online", last_seen=0.0, serves=())
    serves = [
        Served(id=each, patterns=(each,), durable=True, consumers=1, ready=0, leased=0, delayed=0, dead=0, lapsed=False)
        for each in ("bill.*", "order.*")
    ]
    info = AgentInfo("clerk", "online", 0.0, (process,), tuple(serves), ("bill.sent", "order.paid"))
    for whole in (None, ADMIN, may("clerk")):
        assert sight.seen_agents(whole, [info]) == [info]
    (part,) = sight.seen_agents(may(subscribe="bill.*"), [info])
    assert part == AgentInfo("clerk", "online", 0.0, (), (serves[0],), ("bill.sent",))
    assert sight.seen_agents(may(subscribe="stock.*"), [info]) == []


def test_of_a_conversation_letters_are_seen_by_who_may_see_both_the_event_and_the_letter() -> None:
    events = [Event(topic="bill.sent"), Event(topic="bill.sent", target_agent="other"), Event(topic="order.paid")]
    stored = [Stored(event, Position("e", n), 0.0) for n, event in enumerate(events, 1)]
    found = Found(id="1", stored=stored, letters=[letter("bill.sent"), letter("order.paid")])

    def seen(identity: Identity | None) -> tuple[int, int]:
        shown = sight.seen_conversation(identity, found, "2")
        return len(shown.stored), len(shown.letters)

    assert seen(None) == (3, 2)
    assert seen(may(replay="bill.*")) == (1, 0)
    assert seen(may(replay="#", dead_letters="bill.*")) == (2, 1)
    assert seen(may(replay="#", dead_letters="#", admin="#")) == (3, 2)
    with pytest.raises(ConversationNotFound, match="by '2'"):  # not by '1', which is another one's to know
        seen(may(dead_letters="#"))


@pytest.mark.parametrize(
    ("identity", "name", "known"),
    [
        (None, "bills", True),
        (None, "clerk", True),
        (None, "clark", False),
        (None, "", False),
        (may(dead_letters="#"), "bills", True),
        (may(dead_letters="order.*"), "bills", False),
        (ADMIN, "bills", False),
    ],
)
def test_a_name_that_may_not_be_seen_is_as_unknown_as_a_misspelt_one(
    identity: Identity | None, name: str, known: bool
) -> None:
    infos = [subscription("bill.*"), subscription("bill.*", agent="")]
    if known:
        sight.check_named(identity, infos, name)
        return
    with pytest.raises(SubscriptionNotFound, match="no subscription or agent"):
        sight.check_named(identity, infos, name)


def test_who_has_no_rights_knows_of_nothing() -> None:
    assert not sight.administers(NOBODY)
    assert not sight.sees_letters(NOBODY)
    assert not sight.sees_subscription(NOBODY, subscription("bill.*"))
    assert not sight.sees_storm(NOBODY, storm())
