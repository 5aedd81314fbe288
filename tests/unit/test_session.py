"""The session's table, row by row; and frames in any order against a small model of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.unit.test_wire import CLIENT_FRAMES, JSON, REF
from wowevent.access.rates import Rates
from wowevent.access.rights import Identity
from wowevent.broker import Filter, Position
from wowevent.event import Event, utc
from wowevent.retry import MAX_DELAY, Failed, GivenBack, Halted, Later, Rejected, RetryPolicy
from wowevent.router.account import Account
from wowevent.router.session import (
    CREDIT,
    Ask,
    Dismiss,
    Effect,
    Know,
    Leave,
    Listen,
    Look,
    Respond,
    Send,
    Serve,
    Session,
    Settle,
    Store,
)
from wowevent.router.wire import MAX_SUBSCRIPTIONS, PROTOCOL, Bad, Error, Hello, Pong, Welcome, decode, encode

NOW = 1_700_000_000.5
MAX_PAYLOAD = 1000
ASKED = {"event_id": "e", "correlation_id": "c", "reply_to": "_reply.1"}


def session() -> Session:
    return Session("client-1", MAX_PAYLOAD)


def say(to: Session, type: str, **fields: Any) -> Effect:
    """One frame, as it comes off the wire."""
    return to.step(decode(msgspec.json.encode({"type": type, **fields})), NOW)


def subscribe(to: Session, *, ref: Any = None, **wanted: Any) -> Effect:
    return say(to, "subscribe", subscription=wanted, ref=ref)


def refused(effect: Effect) -> str:
    """The code of an error frame."""
    assert isinstance(effect, Send), effect
    assert isinstance(effect.frame, Error), effect
    assert effect.frame.message
    return effect.frame.error


# --- hello, ping, health --------------------------------------------------------------------------------------------


def test_the_welcome_says_who_the_client_is_and_how_large_a_frame_may_be():
    assert session().welcome("now") == Welcome(
        client_id="client-1", server_time="now", protocol=PROTOCOL, max_frame=MAX_PAYLOAD + 65_536
    )


def test_hello_is_answered_by_the_same_and_is_kept():
    client = session()
    assert (client.agent, client.batch, client.instance) == (None, False, "client-1")
    effect = say(client, "hello", batch=True, agent="me", client="mine", ref=7)
    assert effect == Send(Hello(ref=7, batch=True, agent="me"))
    assert (client.agent, client.batch, client.instance) == ("me", True, "mine")
    assert say(client, "hello") == Send(Hello())
    assert (client.agent, client.batch, client.instance) == (None, False, "client-1")


@pytest.mark.parametrize("fields", [{"agent": "a b"}, {"client": ""}, {"agent": "me", "client": "x\r\n"}])
def test_a_hello_with_a_name_that_is_none_changes_nothing(fields):
    client = session()
    assert refused(say(client, "hello", batch=True, **fields)) == "invalid_event"
    assert (client.agent, client.batch, client.instance) == (None, False, "client-1")


def test_hello_comes_before_subscriptions():
    client = session()
    subscribe(client)
    assert refused(say(client, "hello", batch=True)) == "protocol_error"
    assert not client.batch
    say(client, "unsubscribe", subscription_id="sub-1")
    assert say(client, "hello", batch=True) == Send(Hello(batch=True))


def test_ping_is_answered_at_once_and_health_is_looked_up():
    assert say(session(), "ping", echo={"a": 1}, ref="r") == Send(Pong(ref="r", echo={"a": 1}, timestamp=NOW))
    assert say(session(), "get_health", ref="r") == Look("r")


# --- publish, request, reply ----------------------------------------------------------------------------------------


def test_an_event_is_stored_and_without_a_source_is_the_agents():
    client = session()
    say(client, "hello", agent="me")
    effect = say(client, "publish", event={"topic": "task.created", "payload": {"n": 1}, "priority": 8}, ref=1)
    assert isinstance(effect, Store)
    assert (effect.event.topic, effect.event.source_agent, effect.event.priority, effect.ref) == (
        "task.created",
        "me",
        8,
        1,
    )


@pytest.mark.parametrize("type", ["publish", "request"])
@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"topic": "a b"}, "invalid_topic"),
        ({"topic": "a.*"}, "invalid_topic"),
        ({"topic": "_reply.1"}, "invalid_topic"),
        ({"topic": "_bus"}, "invalid_topic"),
        ({"topic": "a" * 201}, "invalid_topic"),
        ({"payload": {}}, "invalid_topic"),
        (None, "invalid_event"),
        ({"topic": "a", "priority": 11}, "invalid_event"),
        ({"topic": "a", "payload": [1]}, "invalid_event"),
        ({"topic": "a", "source_agent": "a b"}, "invalid_event"),
        ({"topic": "a", "v": 2}, "format_too_new"),
        ({"topic": "a", "payload": {"x": "y" * MAX_PAYLOAD}}, "payload_too_large"),
    ],
)
def test_what_may_not_be_published_may_not_be_asked_either(type, event, code):
    found = refused(say(session(), type, event=event, ref=2))
    assert found == code or (event == {"payload": {}} and found.startswith("invalid_"))


def test_the_largest_payload_passes():
    payload = {"x": "y" * (MAX_PAYLOAD - len('{"x":""}'))}
    assert isinstance(say(session(), "publish", event={"topic": "a", "payload": payload}), Store)


def test_a_request_waits_five_seconds_or_as_long_as_it_says():
    for fields, seconds in (({}, 5.0), ({"timeout": 2}, 2.0), ({"timeout": 3600}, 3600.0)):
        effect = say(session(), "request", event={"topic": "a"}, ref=1, **fields)
        assert isinstance(effect, Ask)
        assert (effect.timeout, effect.ref, effect.event.topic) == (seconds, 1, "a")


@pytest.mark.parametrize("timeout", [0, -1, 3600.1, 1e300])
def test_a_request_that_would_wait_too_long_or_not_at_all_is_refused(timeout):
    assert refused(say(session(), "request", event={"topic": "a"}, timeout=timeout)) == "protocol_error"


@pytest.mark.parametrize("answer", [{"reply": {"n": 1}}, {"reply": None}, {"error": "no"}, {}])
def test_a_reply_goes_where_its_request_says(answer):
    effect = say(session(), "reply", event={**ASKED, "topic": "ignored"}, ref=3, **answer)
    assert isinstance(effect, Respond)
    assert msgspec.to_builtins(effect.asked) == ASKED
    assert (effect.reply, effect.error, effect.ref) == (answer.get("reply"), answer.get("error"), 3)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reply_to": "task.created"}, "protocol_error"),
        ({"reply_to": ""}, "protocol_error"),
        ({"reply_to": "_reply.*"}, "invalid_topic"),
        ({"reply_to": "_reply.a\r\n"}, "invalid_topic"),
        ({"event_id": "a b"}, "invalid_event"),
        ({"correlation_id": ""}, "invalid_event"),
    ],
)
def test_a_reply_to_nowhere_is_refused(changes, code):
    assert refused(say(session(), "reply", event={**ASKED, **changes}, reply=1, ref=1)) == code


# --- subscribe ------------------------------------------------------------------------------------------------------


def test_an_anonymous_subscription_listens_as_the_clients_agent():
    client = session()
    say(client, "hello", agent="me")
    effect = subscribe(client, topics=["task.*", "a"], types=["t"], priorities=["high"], sources=["s"], ref="r")
    assert isinstance(effect, Listen)
    assert (effect.id, effect.after, effect.ref) == ("sub-1", None, "r")
    spec = effect.spec
    assert (spec.patterns, spec.agent, spec.durable) == (("task.*", "a"), "me", False)
    assert spec.filter == Filter(types=frozenset({"t"}), priorities=frozenset({7, 8}), sources=frozenset({"s"}))
    assert client.subscriptions == {"sub-1": spec}


@pytest.mark.parametrize("wanted", [{}, {"topics": "*"}, {"topics": ["*"], "types": None, "after": None}])
def test_everything_is_what_is_wanted_unless_it_is_said(wanted):
    effect = subscribe(session(), **wanted)
    assert isinstance(effect, Listen)
    assert (effect.spec.patterns, effect.spec.filter, effect.spec.agent) == (("*",), None, "")


def test_it_goes_on_behind_a_position():
    effect = subscribe(session(), after="4f2a-17")
    assert isinstance(effect, Listen)
    assert effect.after == Position("4f2a", 17)


def test_a_named_subscription_is_the_buss_own():
    wanted = {"topics": ["task.*"], "name": "worker", "lease": 0.5, "max_retries": 0, "credit": 3, "held": ["t"]}
    effect = subscribe(session(), **wanted, ref=1)
    assert isinstance(effect, Serve)
    assert (effect.id, effect.policy, effect.credit, effect.held) == ("sub-1", RetryPolicy(max_retries=0), 3, ("t",))
    spec = effect.spec
    assert (spec.id, spec.agent, spec.durable, spec.lease, spec.start) == ("worker~task.*", "worker", True, 0.5, "new")
    effect = subscribe(session(), subscription="own")
    assert isinstance(effect, Serve)
    assert (effect.spec.id, effect.spec.agent, effect.spec.lease, effect.credit) == ("own", "", 30.0, CREDIT)
    assert effect.policy == RetryPolicy()


def test_a_named_subscription_is_the_clients_agents_unless_it_names_another():
    client = session()
    say(client, "hello", agent="me")
    effect = subscribe(client, subscription="own")
    assert isinstance(effect, Serve)
    assert effect.spec.agent == "me"


@pytest.mark.parametrize(
    ("wanted", "start"),
    [
        ({}, "new"),
        ({"start": "new"}, "new"),
        ({"start": "first"}, "first"),
        ({"start": "4f2a-7"}, Position("4f2a", 7)),
        ({"after": "4f2a-7"}, Position("4f2a", 7)),
        ({"start": "20260131-12"}, Position("20260131", 12)),
        ({"start": "2026-01-31"}, utc("2026-01-31T00:00:00Z")),
        ({"start": "2026-01-31T12:00:00-05"}, utc("2026-01-31T17:00:00Z")),
        ({"start": "2026-01-31T12:00:00Z"}, utc("2026-01-31T12:00:00Z")),
    ],
)
def test_a_named_one_begins_where_it_says(wanted, start):
    effect = subscribe(session(), name="worker", **wanted)
    assert isinstance(effect, Serve)
    assert effect.spec.start == start


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"topics": []}, "invalid_topic"),
        ({"topics": ["task*"]}, "invalid_topic"),
        ({"topics": ["a"] * 257}, "not_supported"),
        ({"topics": ["a", "**"]}, "invalid_topic"),
        ({"priorities": [11]}, "invalid_event"),
        ({"priorities": ["urgent"]}, "invalid_event"),
        ({"min_priority": 0}, "invalid_event"),
        ({"sources": ["a b"]}, "invalid_event"),
        ({"name": "a b"}, "invalid_event"),
        ({"name": ""}, "invalid_event"),
        ({"subscription": "a*"}, "invalid_event"),
        ({"name": "a", "lease": 0}, "protocol_error"),
        ({"name": "a", "lease": 1e-9}, "protocol_error"),
        ({"name": "a", "lease": 86_401}, "protocol_error"),
        ({"name": "a", "max_retries": -1}, "protocol_error"),
        ({"name": "a", "credit": 0}, "protocol_error"),
        ({"name": "a", "credit": 10_001}, "protocol_error"),
        ({"name": "a", "start": "soon"}, "invalid_event"),
        ({"name": "a", "start": "4f2a-9223372036854775808"}, "invalid_event"),
        ({"name": "a", "start": "2026-13-31"}, "invalid_event"),
        ({"after": "here"}, "invalid_event"),
        ({"after": "4f2a-x"}, "invalid_event"),
        ({"after": "4f2a-9223372036854775808"}, "invalid_event"),
        ({"after": "4f2a-" + "9" * 5000}, "invalid_event"),
        ({"lease": 1}, "protocol_error"),
        ({"max_retries": 1}, "protocol_error"),
        ({"start": "new"}, "protocol_error"),
    ],
)
def test_a_subscription_that_makes_no_sense_is_refused_and_leaves_nothing(wanted, code):
    client = session()
    effect = subscribe(client, **wanted, ref=5)
    assert refused(effect) == code
    assert not client.subscriptions


def test_the_same_named_one_twice_is_a_conflict_and_the_same_anonymous_one_is_not():
    client = session()
    subscribe(client, name="worker")
    assert refused(subscribe(client, name="worker")) == "subscription_conflict"
    assert isinstance(subscribe(client, name="worker", topics=["a"]), Serve)
    assert isinstance(subscribe(client), Listen)
    assert isinstance(subscribe(client), Listen)
    assert list(client.subscriptions) == ["sub-1", "sub-2", "sub-3", "sub-4"]


def test_a_client_has_so_many_and_ids_are_never_used_again():
    client = session()
    for _ in range(MAX_SUBSCRIPTIONS):
        assert isinstance(subscribe(client), Listen)
    assert refused(subscribe(client)) == "not_supported"
    say(client, "unsubscribe", subscription_id="sub-1")
    effect = subscribe(client)
    assert isinstance(effect, Listen)
    assert effect.id == f"sub-{MAX_SUBSCRIPTIONS + 1}"


def test_unsubscribed_and_forgotten_ones_are_unknown():
    client = session()
    subscribe(client)
    subscribe(client, name="worker")
    assert say(client, "unsubscribe", subscription_id="sub-1", ref=1) == Leave("sub-1", 1)
    client.forget("sub-2")
    client.forget("sub-2")
    for id in ("sub-1", "sub-2", "sub-3", ""):
        for type in ("unsubscribe", "ack", "nack"):
            assert refused(say(client, type, subscription_id=id, tokens=[])) == "subscription_not_found"


# --- ack, nack ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "fields", "outcome"),
    [
        ("ack", {}, None),
        ("nack", {"error": "no"}, Failed("no")),
        ("nack", {"error": "no", "traceback": "tb"}, Failed("no", "tb")),
        ("nack", {}, Failed("failed at the client")),
        ("nack", {"error": "x" * 9000}, Failed("x" * 8192)),
        ("nack", {"retry_after": 2}, Later(2.0)),
        ("nack", {"retry_after": -2}, Later(0.0)),
        ("nack", {"retry_after": 1e300}, Later(MAX_DELAY)),
        ("nack", {"reject": True, "error": "no"}, Rejected("no")),
        ("nack", {"reject": True}, Rejected("rejected by the client")),
        ("nack", {"release": True, "error": "no"}, GivenBack()),
        ("nack", {"pause": 60, "error": "quota"}, Halted(60.0, "quota")),
        ("nack", {"pause": -1}, Halted(0.0)),
        ("nack", {"pause": 1e300}, Halted(31 * 86_400.0)),
    ],
)
def test_what_a_client_says_of_its_tokens(type, fields, outcome):
    client = session()
    subscribe(client, name="worker")
    effect = say(client, type, subscription_id="sub-1", tokens=["a", "b"], ref=9, **fields)
    assert effect == Settle("sub-1", ("a", "b"), outcome, 9)


def test_nothing_of_an_anonymous_one_is_acknowledged():
    client = session()
    subscribe(client)
    for type in ("ack", "nack"):
        assert refused(say(client, type, subscription_id="sub-1", tokens=["t"])) == "protocol_error"


def test_a_frame_that_could_not_be_read_is_answered_with_its_ref():
    effect = session().step(decode(b'{"type":"invented","ref":"r"}'), NOW)
    assert refused(effect) == "protocol_error"
    assert isinstance(effect, Send)
    assert effect.frame.ref == "r"


# --- any frames in any order ----------------------------------------------------------------------------------------

IDS = st.integers(1, 6).map("sub-{}".format) | st.sampled_from(("", "sub-0", "sub-200", "worker"))
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(("worker", "other", "no name")),
        "subscription": st.sampled_from(("own", "../x", "a*")),
        "topics": st.sampled_from((["*"], ["task.*"], ["a", "b"], "a.#", [], ["**"])),
        "start": st.sampled_from(("new", "first", "2026-01-31", "4f2a-1", "soon", "-")),
        "after": st.sampled_from(("4f2a-1", "nowhere", "4f2a-1e9")),
        "lease": st.sampled_from((30, 0, -1, 1e300, 0.1)),
        "credit": st.sampled_from((1, 0, 10**30)),
        "max_retries": st.sampled_from((0, -1, 5)),
        "priorities": st.sampled_from(([1], ["high"], [0], [True])),
        "held": st.just(["t"]),
    },
)


class SessionMachine(RuleBasedStateMachine):
    """Against a model that knows which ids there are, and which of them are named."""

    def __init__(self) -> None:
        super().__init__()
        self.session = session()
        self.named: dict[str, bool] = {}
        self.used: set[str] = set()

    def step(self, frame: Any) -> Effect:
        """One frame, with all that must hold of any effect."""
        before = dict(self.session.subscriptions)
        effect = self.session.step(frame, NOW)
        assert isinstance(effect, Effect)
        assert not isinstance(effect, Know | Dismiss), "everybody is welcome here"
        answers = effect.frame.ref if isinstance(effect, Send) else effect.ref
        assert answers == frame.ref, "what has a ref is answered with it"
        if isinstance(effect, Listen | Serve):
            assert effect.id not in self.used, "an id is never used again"
            assert isinstance(effect, Serve) is effect.spec.durable
            assert len(before) < MAX_SUBSCRIPTIONS
            self.used.add(effect.id)
            self.named[effect.id] = effect.spec.durable
        elif isinstance(effect, Leave):
            assert effect.id in self.named
            del self.named[effect.id]
        elif isinstance(effect, Settle):
            assert self.named.get(effect.id), "only what is known and named is settled"
        else:
            assert self.session.subscriptions == before, "nothing else changes what is subscribed"
        return effect

    def say(self, type: str, **fields: Any) -> Effect:
        return self.step(decode(msgspec.json.encode({"type": type, **fields})))

    @rule(data=st.binary(max_size=40))
    def bytes_come(self, data):
        frame = decode(data)
        if isinstance(frame, Bad):
            assert isinstance(self.step(frame), Send)

    @rule(frame=CLIENT_FRAMES)
    def any_frame_comes(self, frame):
        self.step(frame)

    @rule(type=st.sampled_from(("publish", "request", "reply", "invented")), value=JSON, ref=REF)
    def anything_is_an_event(self, type, value, ref):
        self.say(type, event=value, ref=ref)

    @rule(topic=st.sampled_from(("a", "_bus.a", "a b", "a.*")), ref=REF)
    def an_event_comes(self, topic, ref):
        stored = isinstance(self.say("publish", event={"topic": topic, "source_agent": "s"}, ref=ref), Store)
        assert stored is (topic == "a")

    @rule(agent=st.sampled_from((None, "me", "no name")), batch=st.booleans(), ref=REF)
    def hello_comes(self, agent, batch, ref):
        effect = self.say("hello", agent=agent, batch=batch, ref=ref)
        assert isinstance(effect, Send)
        assert isinstance(effect.frame, Hello) is (agent != "no name" and not self.named)

    @rule(ref=REF)
    def an_anonymous_subscribe_comes(self, ref):
        full = len(self.named) >= MAX_SUBSCRIPTIONS
        assert isinstance(self.say("subscribe", subscription={}, ref=ref), Send if full else Listen)

    @rule(wanted=NAMED, ref=REF)
    def a_subscribe_comes(self, wanted, ref):
        self.say("subscribe", subscription=wanted, ref=ref)

    @rule(name=st.sampled_from("abc"), ref=REF)
    def a_named_subscribe_comes(self, name, ref):
        conflict = any(spec.id == name for spec in self.session.subscriptions.values())
        full = len(self.named) >= MAX_SUBSCRIPTIONS
        effect = self.say("subscribe", subscription={"subscription": name}, ref=ref)
        assert isinstance(effect, Send if conflict or full else Serve)

    @rule(id=IDS, ref=REF)
    def unsubscribe_comes(self, id, ref):
        known = id in self.named
        assert isinstance(self.say("unsubscribe", subscription_id=id, ref=ref), Leave if known else Send)

    @rule(type=st.sampled_from(("ack", "nack")), id=IDS, tokens=st.lists(st.text(max_size=4), max_size=2), ref=REF)
    def a_settlement_comes(self, type, id, tokens, ref):
        effect = self.say(type, subscription_id=id, tokens=tokens, ref=ref)
        assert isinstance(effect, Settle if self.named.get(id) else Send)

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def a_subscription_fails_later(self, data):
        id = data.draw(st.sampled_from(sorted(self.named)))
        self.session.forget(id)
        del self.named[id]
        assert isinstance(self.say("unsubscribe", subscription_id=id), Send)

    @rule(count=st.sampled_from((1, 60, 130)))
    def many_subscribe(self, count):
        for _ in range(count):
            self.an_anonymous_subscribe_comes(ref=None)

    @invariant()
    def the_model_agrees(self):
        assert {id: spec.durable for id, spec in self.session.subscriptions.items()} == self.named
        assert len(self.named) <= MAX_SUBSCRIPTIONS


def fuzz(seconds: float) -> None:
    """Walk for so long, always on other ways."""
    until = time.monotonic() + seconds
    way = settings(max_examples=40, stateful_step_count=50, deadline=None, database=None)
    while time.monotonic() < until:
        run_state_machine_as_test(SessionMachine, settings=way)


@pytest.mark.timeout(180)
def test_any_frames_in_any_order():
    fuzz(seconds=8)  # `make faults` goes on for ten minutes


# --- tokens -----------------------------------------------------------------------------------------------------------


def known(**grants: tuple[str, ...]) -> Session:
    """A client whose token says that it is alice."""
    client = Session("client-1", MAX_PAYLOAD, guarded=True)
    client.know(Identity("alice", "t1", grants=grants), Account(), Rates())
    return client


@pytest.mark.parametrize("type", ["publish", "subscribe", "get_health", "ping", "hello", "reply"])
def test_a_client_that_nobody_knows_is_dismissed(type: str):
    client = Session("client-1", MAX_PAYLOAD, guarded=True)
    assert client.unknown
    fields = {"event": {"topic": "a", **ASKED}, "subscription": {}}
    assert isinstance(say(client, type, **fields), Dismiss)
    assert not client.subscriptions


def test_its_hello_is_kept_until_it_is_known_without_the_token():
    client = Session("client-1", MAX_PAYLOAD, guarded=True)
    effect = say(client, "hello", token="s3cr3t", batch=True, ref=7)
    assert isinstance(effect, Know)
    assert effect.token == "s3cr3t"
    assert "s3cr3t" not in repr(effect.hello)
    client.know(Identity("alice", "t1"), Account(), Rates())
    assert client.step(effect.hello, NOW) == Send(Hello(ref=7, batch=True, agent="alice"))
    assert b"token" not in encode(Hello(ref=7, batch=True, agent="alice"))


def test_no_frame_shows_its_token():
    frame = decode(b'{"type":"hello","token":"s3cr3t"}')
    assert isinstance(frame, Hello)
    assert frame.token == "s3cr3t"
    assert "s3cr3t" not in repr(frame)
    assert "s3cr3t" not in repr(Know("s3cr3t", frame))


def test_without_a_guard_a_token_means_nothing():
    client = session()
    assert say(client, "hello", token="s3cr3t", agent="me") == Send(Hello(agent="me"))
    assert client.identity is None


def test_nobody_comes_back_as_the_client_of_another_agent():
    client = known()
    say(client, "hello", client="mine")
    assert client.instance == "alice~mine"
    assert refused(say(client, "hello", client="bob~mine")) == "invalid_event"


@pytest.mark.parametrize(
    ("topic", "target", "heard"),
    [("task.a", None, True), ("task.a", "alice", True), ("task.a", "bob", False), ("pay.a", None, False)],
)
def test_what_a_client_hears(topic: str, target: str | None, *, heard: bool):
    event = Event(topic=topic, target_agent=target)
    assert known(subscribe=("task.*",)).hears(event) is heard
    assert session().hears(event)
