"""One client's state machine: any frames in any order, without tokens and with them, against a model of rights."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.rounds import Rounds
from tests.fuzz.test_topic import EVENTS
from tests.fuzz.test_wire import CLIENT_BYTES, SAID
from tests.fuzz.texts import WICKED, changed, text_of
from tests.unit.test_session import SessionMachine
from tests.unit.test_topic import oracle
from wowevent import errors
from wowevent.access.rates import Rates
from wowevent.access.rights import Identity, Limits
from wowevent.broker import LIVE, Subscription
from wowevent.errors import NotPermitted
from wowevent.router.account import Account
from wowevent.router.session import (
    Ask,
    Dismiss,
    Effect,
    Know,
    Leave,
    Listen,
    Respond,
    Send,
    Serve,
    Session,
    Settle,
    Store,
)
from wowevent.router.wire import MAX_SUBSCRIPTIONS, Error, Hello, decode, encode

NOW = 1_700_000_000.5
MAX_PAYLOAD = 1_000
CODES = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BusError)}
TOPICS = [".".join(words) for n in (1, 2, 3) for words in itertools.product(("task", "a", "_r", "x"), repeat=n)]
"""`x` stands for every word that no pattern names."""
PATTERNS = st.sampled_from(
    ("*", "#", "task.*", "task.#", "task", "*.a", "#.a", "a.*.task", "_r.*", "_r.#", "task.a", "*.*", "a.#.task")
)
GRANTED = st.fixed_dictionaries(
    {right: st.lists(PATTERNS, max_size=3).map(tuple) for right in ("publish", "subscribe", "replay")}
)
A_SECOND = 5
"""Events that alice may publish in one, where that is limited."""


def test_any_frames_in_any_order_without_tokens(fuzz: Rounds):
    fuzz.walk(SessionMachine, short=8)


def test_any_frames_in_any_order_with_tokens(fuzz: Rounds):
    fuzz.walk(GuardedMachine, short=15)


def code_of(effect: Effect) -> str | None:
    """Of what is refused."""
    return effect.frame.error if isinstance(effect, Send) and isinstance(effect.frame, Error) else None


class GuardedMachine(RuleBasedStateMachine):
    """A client whose token says that it is alice; what it may do is looked up word by word."""

    @initialize(grants=GRANTED, rate=st.booleans(), most=st.sampled_from((None, 3)))
    def connect(self, grants: dict[str, tuple[str, ...]], rate: bool, most: int | None) -> None:
        limits = Limits(events=f"{A_SECOND}/s" if rate else None, subscriptions=most)
        self.alice = Identity("alice", "t1", grants=grants, limits=limits)
        self.most = most or MAX_SUBSCRIPTIONS
        self.session = Session("client-1", MAX_PAYLOAD, guarded=True)
        self.account = Account()
        self.time = 1_000.0
        self.rates = Rates(lambda: self.time)
        self.published: list[float] = []
        self.brought: dict[str, str] = {}

    # --- what comes --------------------------------------------------------------------------------------------------

    @rule(data=CLIENT_BYTES)
    def bytes_come(self, data: bytes) -> None:
        self.step(decode(data))

    @rule(
        topic=st.sampled_from(TOPICS),
        source=st.sampled_from((None, "alice", "bob", "")),
        reply_to=st.sampled_from((None, "a", f"{LIVE}reply.1")),
        kind=st.sampled_from(("publish", "request")),
        size=st.sampled_from((0, MAX_PAYLOAD)),
    )
    def an_event_comes(self, topic: str, source: str | None, reply_to: str | None, kind: str, size: int) -> None:
        event = {"topic": topic, "source_agent": source, "reply_to": reply_to, "payload": {"x": "y" * size}}
        effect = self.say(kind, event=event)
        mine = source in {None, "", "alice"}
        good = mine and not size and not topic.startswith("_") and self.granted("publish", topic)
        limited = code_of(effect) == "rate_limited"
        assert isinstance(effect, Store | Ask) is (good and self.known and not limited)

    @rule(
        topics=st.lists(PATTERNS, min_size=1, max_size=2),
        name=st.sampled_from((None, "alice", "bob")),
        subscription=st.sampled_from((None, "own", "other")),
        after=st.sampled_from((None, "4f2a-1")),
        credit=st.sampled_from((None, 1, 0, 10_001)),
    )
    def a_subscribe_comes(self, **wanted: Any) -> None:
        self.say("subscribe", subscription={name: value for name, value in wanted.items() if value is not None})

    @rule(wanted=changed(SAID["subscribe"]["subscription"], ("topics", "name", "after", "credit")))
    def a_strange_subscribe_comes(self, wanted: dict[str, Any]) -> None:
        self.say("subscribe", subscription=wanted)

    @rule(id=st.integers(0, 5).map("sub-{}".format) | WICKED, kind=st.sampled_from(("unsubscribe", "ack", "nack")))
    def a_subscription_is_named(self, id: str, kind: str) -> None:
        before = dict(self.session.subscriptions)
        effect = self.say(kind, subscription_id=id, tokens=["t"])
        if self.known:
            allowed = id in before and (kind == "unsubscribe" or before[id].durable)
            assert isinstance(effect, Leave | Settle) is allowed

    @rule(request=st.sampled_from(("q1", "q2")), reply_to=st.sampled_from((f"{LIVE}reply.1", f"{LIVE}reply.2", "a")))
    def a_reply_comes(self, request: str, reply_to: str) -> None:
        effect = self.say("reply", event={"event_id": request, "correlation_id": "c", "reply_to": reply_to}, reply=1)
        if not isinstance(effect, Send):
            assert not self.known or self.brought.get(request) == reply_to, "it was not asked"

    @precondition(lambda self: not self.known)
    @rule(agent=st.sampled_from((None, "alice", "bob")), client=st.sampled_from((None, "mine")))
    def it_says_its_token(self, agent: str | None, client: str | None) -> None:
        effect = self.say("hello", token="s3cr3t", agent=agent, client=client)
        assert isinstance(effect, Know)
        assert "s3cr3t" not in repr(effect)
        self.session.know(self.alice, self.account, self.rates)
        answer = self.step(effect.hello)
        assert isinstance(answer, Send)
        assert isinstance(answer.frame, Hello) is (agent != "bob")
        assert b"s3cr3t" not in encode(answer.frame)

    # --- what happens meanwhile --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.1, 1.0, 10.0)))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    @rule(request=st.sampled_from(("q1", "q2")), reply_to=st.sampled_from((f"{LIVE}reply.1", f"{LIVE}reply.2")))
    def a_request_is_brought(self, request: str, reply_to: str) -> None:
        self.account.note(request, reply_to)
        self.brought[request] = reply_to

    @precondition(lambda self: self.session.subscriptions)
    @rule(data=st.data())
    def a_subscription_fails(self, data: st.DataObject) -> None:
        self.session.forget(data.draw(st.sampled_from(sorted(self.session.subscriptions))))

    @precondition(lambda self: self.known)
    @rule(event=EVENTS)
    def an_event_is_there(self, event: Any) -> None:
        may = event.target_agent in {None, "alice"} and self.granted("subscribe", event.topic)
        assert self.session.hears(event) is may

    @precondition(lambda self: self.known)
    @rule(
        agent=st.sampled_from(("", "alice", "bob")),
        patterns=st.lists(PATTERNS, min_size=1, max_size=2).map(tuple),
        keyed=st.booleans(),
    )
    def it_would_join(self, agent: str, patterns: tuple[str, ...], keyed: bool) -> None:
        try:
            self.session.check_joining(Subscription(id="own", patterns=patterns, agent=agent, keyed=keyed))
        except NotPermitted:
            return
        assert agent in {"", "alice"}
        for topic in TOPICS:
            # What a keyed one takes cannot be told by topics: it may be any.
            taken = not topic.startswith("_") if keyed else any(oracle(each, topic) for each in patterns)
            assert not taken or self.granted("subscribe", topic)

    # --- what must hold ----------------------------------------------------------------------------------------------

    @property
    def known(self) -> bool:
        return self.session.identity is not None

    def granted(self, right: str, topic: str) -> bool:
        return any(oracle(each, topic) for each in self.alice.grants[right])

    def say(self, type: str, **fields: Any) -> Effect:
        return self.step(decode(text_of({"type": type, "ref": 7, **fields})))

    def step(self, frame: Any) -> Effect:
        """One frame, with all that must hold of any effect."""
        was_known, before = self.known, dict(self.session.subscriptions)
        effect = self.session.step(frame, NOW)
        if not was_known:
            assert isinstance(effect, Know | Dismiss)
            return effect
        assert not isinstance(effect, Know | Dismiss)
        assert (effect.frame.ref if isinstance(effect, Send) else effect.ref) == frame.ref
        match effect:
            case Store() | Ask():
                self.check_event(effect.event)
            case Listen() | Serve():
                assert effect.id not in before
                self.check_subscription(effect)
            case Respond():
                assert self.brought[effect.asked.event_id] == effect.asked.reply_to
            case Settle():
                assert before[effect.id].durable
            case Send(frame=Error() as error):
                assert error.error in CODES
                assert error.error != "rate_limited" or (error.retry_after or 0) > 0
        if not isinstance(effect, Listen | Serve | Leave):
            assert self.session.subscriptions == before
        return effect

    def check_event(self, event: Any) -> None:
        assert event.source_agent == "alice"
        assert not event.topic.startswith("_")
        assert self.granted("publish", event.topic)
        assert event.reply_to is None or not event.reply_to.startswith(LIVE)
        assert len(msgspec.json.encode(event.body)) <= MAX_PAYLOAD
        self.published.append(self.time)

    def check_subscription(self, effect: Listen | Serve) -> None:
        spec = effect.spec
        assert spec.agent == "alice"
        past = effect.after is not None if isinstance(effect, Listen) else spec.start != "new"
        for topic in (each for each in TOPICS if any(oracle(pattern, each) for pattern in spec.patterns)):
            assert self.granted("subscribe", topic)
            assert not past or self.granted("replay", topic)
        if isinstance(effect, Serve):
            assert 1 <= effect.credit <= 10_000
            assert 0.1 <= spec.lease <= 86_400
            assert effect.policy.max_retries >= 0

    @invariant()
    def nobody_has_more_than_his_share(self) -> None:
        assert len(self.session.subscriptions) <= self.most
        if self.alice.limits.events is not None:
            lately = [time for time in self.published if time > self.time - 1]
            assert len(lately) <= 2 * A_SECOND + 1

    @invariant()
    def nobody_is_another(self) -> None:
        if self.known:
            assert self.session.agent == "alice"
            assert self.session.instance.startswith("alice~")
