"""One client's state machine: a frame in, effects out; no I/O.

    frame            state that it needs          right that it needs     effects
    ----------------------------------------------------------------------------------------------------------------
    hello            no subscription yet          its own name            Send(hello)
    publish          an event that is one         publish                 Store
    subscribe        room, a new identity         subscribe, and replay   Listen (anonymous) or Serve (named);
                                                  for what is past        subscribed by the server
    unsubscribe      the id is known              -                       Leave; unsubscribed by the server
    ack, nack        the id is known, and named   -                       Settle
    request          an event that is one         publish                 Ask
    reply            a live topic                 it got the request      Respond
    ping             -                            -                       Send(pong)
    get_health       -                            -                       Look
    anything else    -                            -                       Send(error); nothing of it is carried out

Rights count where the router knows its clients by tokens. There a client that did not say one at the handshake says it
in its first frame, a hello: Know. Any other frame is Dismiss, the end.

The state changes as the effects are made; an effect that fails is taken back by `forget`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import UNSET, Struct, structs

from wowevent.access.rates import Rates
from wowevent.access.rights import EVERYTHING, Identity
from wowevent.access.stamp import stamped
from wowevent.broker import LIVE, Position, Subscription
from wowevent.errors import (
    BusError,
    InvalidEvent,
    NotPermitted,
    NotSupported,
    PauseSubscription,
    ProtocolError,
    RateLimited,
    SubscriptionConflict,
    SubscriptionNotFound,
    printable,
    shown,
)
from wowevent.event import Event, check_name, utc
from wowevent.payload import too_large
from wowevent.retry import MAX_DELAY, Failed, GivenBack, Halted, Later, Outcome, Rejected, RetryPolicy
from wowevent.router.account import Account
from wowevent.router.wire import (
    MARGIN,
    MAX_SUBSCRIPTIONS,
    PROTOCOL,
    Ack,
    Asked,
    Bad,
    ClientFrame,
    Error,
    GetHealth,
    Hello,
    Nack,
    Ping,
    Pong,
    Publish,
    Ref,
    Reply,
    Request,
    ServerFrame,
    Subscribe,
    Unsubscribe,
    Wanted,
    Welcome,
    event_of,
)
from wowevent.subscription import Wish, declaration
from wowevent.topic import is_reserved, matches_any, reserved

CREDIT: Final = 64
"""The most of a named subscription that wait for their acknowledgement, unless the client says otherwise."""
_MOST_CREDIT: Final = 10_000
_MOST_TOPICS: Final = 256  # of one subscription
_LONGEST_WAIT: Final = 3600.0  # seconds that a request may wait
_LEASES: Final = (0.1, 86_400.0)  # seconds; leases are renewed thrice in their time, for others must stay some
_TEXT: Final = 8_192  # characters kept of an error or a traceback
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


class Send(Struct, frozen=True):
    """A frame to the client."""

    frame: ServerFrame


class Store(Struct, frozen=True):
    """An event to publish."""

    event: Event
    ref: Ref


class Listen(Struct, frozen=True):
    """An anonymous subscription, from behind `after` where that is given."""

    id: str
    spec: Subscription
    after: Position | None
    ref: Ref


class Serve(Struct, frozen=True):
    """A named subscription; `held` are the tokens that the client still has of it."""

    id: str
    spec: Subscription
    policy: RetryPolicy
    credit: int
    held: tuple[str, ...]
    ref: Ref


class Leave(Struct, frozen=True):
    """The end of a subscription here."""

    id: str
    ref: Ref


class Settle(Struct, frozen=True):
    """What became of deliveries; None is done."""

    id: str
    tokens: tuple[str, ...]
    outcome: Outcome | None
    ref: Ref


class Ask(Struct, frozen=True):
    """A request to make."""

    event: Event
    timeout: float
    ref: Ref


class Respond(Struct, frozen=True):
    """The answer to a request of somebody."""

    asked: Asked
    reply: Any
    error: str | None
    ref: Ref


class Look(Struct, frozen=True):
    """The router's health is wanted."""

    ref: Ref


class Know(Struct, frozen=True):
    """Find out who the client is, by the token of its hello, which is carried out then."""

    token: str
    hello: Hello

    def __repr__(self) -> str:
        """Without the token."""
        return f"Know({self.hello!r})"


class Dismiss(Struct, frozen=True):
    """The end of a client that does not say who it is."""

    reason: str


Effect = Send | Store | Listen | Serve | Leave | Settle | Ask | Respond | Look | Know | Dismiss


class Session:
    """What the router knows of one client."""

    def __init__(self, client_id: str, max_payload: int, *, guarded: bool = False) -> None:
        """`max_payload` bytes is the largest payload that the bus takes; `guarded`: nothing before `know`."""
        self.client_id = client_id
        self.agent: str | None = None
        self.identity: Identity | None = None
        """Who it is, by its token; None without one."""
        self.account: Account = Account()
        """What it shares with the other clients of its agent."""
        self.batch: bool = False
        self.instance: str = client_id
        """What the client calls itself, the same when it connects again."""
        self.subscriptions: dict[str, Subscription] = {}
        self._max_payload = max_payload
        self._guarded = guarded
        self._rates: Rates | None = None
        self._count = 0

    @property
    def unknown(self) -> bool:
        """Whether it has yet to say who it is."""
        return self._guarded and self.identity is None

    def know(self, identity: Identity, account: Account, rates: Rates) -> None:
        """This is who it is; its agent's name is that of the token."""
        self.identity, self.account, self.agent = identity, account, identity.name
        self._rates = rates
        self.instance = f"{identity.name}~{self.client_id}"

    def welcome(self, server_time: str) -> Welcome:
        """The first frame of all."""
        return Welcome(
            client_id=self.client_id,
            server_time=server_time,
            protocol=PROTOCOL,
            max_frame=self._max_payload + MARGIN,
        )

    def forget(self, id: str) -> None:
        """A subscription that is not served after all."""
        self.subscriptions.pop(id, None)

    def step(self, frame: ClientFrame | Bad, now: float) -> Effect:
        """What follows from one frame; `now` in Unix seconds. Nothing is raised: what is wrong is answered."""
        try:
            return self._step(frame, now)
        except BusError as error:
            return refusal(error, frame.ref)
        except ValueError as error:  # settings that make no sense
            return refusal(ProtocolError(str(error)), frame.ref)

    def _step(self, frame: ClientFrame | Bad, now: float) -> Effect:  # noqa: C901, PLR0911 - the table above
        if self.unknown:
            return _introduction(frame)
        match frame:
            case Publish():
                return Store(self._published(frame), frame.ref)
            case Ack():
                return Settle(self._named(frame.subscription_id), frame.tokens, None, frame.ref)
            case Nack():
                return Settle(self._named(frame.subscription_id), frame.tokens, _outcome(frame), frame.ref)
            case Ping():
                return Send(Pong(ref=frame.ref, echo=frame.echo, timestamp=now))
            case Hello():
                return self._hello(frame)
            case Subscribe():
                return self._subscribe(frame.subscription, frame.ref)
            case Unsubscribe():
                self._known(frame.subscription_id)
                del self.subscriptions[frame.subscription_id]
                return Leave(frame.subscription_id, frame.ref)
            case Request():
                return Ask(self._published(frame), _within("timeout", frame.timeout, _LONGEST_WAIT), frame.ref)
            case Reply():
                return self._response(frame)
            case GetHealth():
                return Look(frame.ref)
            case _:
                return refusal(frame.error, frame.ref)

    def _hello(self, frame: Hello) -> Effect:
        if self.subscriptions:
            raise ProtocolError("say hello before you subscribe")
        agent = None if frame.agent is None else check_name(frame.agent)
        instance = self.client_id if frame.client is None else check_name(frame.client)
        if (identity := self.identity) is not None:
            if isinstance(frame.token, str):
                raise ProtocolError("the token was said already")
            self._check_name("this client", agent)
            agent = identity.name
            instance = f"{agent}~{instance}"  # a name has no '~': nobody comes back as another
        self.agent, self.batch, self.instance = agent, frame.batch, instance
        return Send(Hello(ref=frame.ref, batch=frame.batch, agent=agent))

    def _check_name(self, what: str, name: str | None) -> None:
        """NotPermitted for another name than that of the token."""
        if self.identity is not None and name not in {None, "", self.identity.name}:
            raise NotPermitted(f"{what} is {self.identity.name!r} by its token, not {shown(name)}")

    def _published(self, frame: Publish | Request) -> Event:
        """The event of a frame, if this client may publish it now."""
        if (identity := self.identity) is None:
            return self._checked(event_of(frame, self.agent))
        self._spend()
        event = event_of(frame, None)
        self._check_name("source_agent", event.source_agent)
        if not matches_any(identity.grants.get("publish", ()), event.topic):
            identity.check("publish", event.topic)
        if event.source_agent != identity.name or event.reply_to is not None:
            event = stamped(event, identity)
        return self._checked(event)

    def _spend(self) -> None:
        """RateLimited if this agent publishes faster than it may."""
        if self._rates is not None:
            self._rates.spend(self.identity, "events")

    def _checked(self, event: Event) -> Event:
        """The event, if a client may publish it."""
        if is_reserved(event.topic):
            raise reserved(event.topic)
        if (size := memoryview(event.body).nbytes) > self._max_payload:
            raise too_large(size, self._max_payload)
        return event

    def _subscribe(self, wanted: Wanted, ref: Ref) -> Effect:
        if len(self.subscriptions) >= (most := self._most_subscriptions):
            raise NotSupported(f"a client has {most} subscriptions at most")
        self._check_name("a subscription's agent", wanted.name)
        spec = _spec(wanted, self.agent)
        self._check_hearing(wanted, spec)
        if any(known.id == spec.id for known in self.subscriptions.values()):
            raise SubscriptionConflict(f"this client has {spec.id!r} already")
        after = None if wanted.after is None else _position("after", wanted.after)
        if not wanted.named:
            self._remember(spec)
            return Listen(f"sub-{self._count}", spec, after, ref)
        policy = RetryPolicy() if wanted.max_retries is None else RetryPolicy(max_retries=wanted.max_retries)
        credit = CREDIT if wanted.credit is None else wanted.credit
        if not 1 <= credit <= _MOST_CREDIT:
            raise ValueError(f"credit: {credit} is not from 1 to {_MOST_CREDIT}")
        self._remember(spec)
        return Serve(f"sub-{self._count}", spec, policy, credit, wanted.held, ref)

    @property
    def _most_subscriptions(self) -> int:
        own = None if self.identity is None else self.identity.limits.subscriptions
        return MAX_SUBSCRIPTIONS if own is None else min(own, MAX_SUBSCRIPTIONS)

    def _check_hearing(self, wanted: Wanted, spec: Subscription) -> None:
        """NotPermitted for what the token may not hear, or not from the past."""
        if self.identity is not None:
            self.identity.check("subscribe", *spec.patterns)
            if not {wanted.start, wanted.after} <= {None, "new"}:
                self.identity.check("replay", *spec.patterns)

    def check_joining(self, remembered: Subscription | None) -> None:
        """NotPermitted for a named subscription that is another agent's, or brings what the token may not hear.

        What waits in it was taken by the patterns that it had.
        """
        if self.identity is None or remembered is None:
            return
        if remembered.agent not in {"", self.identity.name}:
            raise NotPermitted(f"subscription {shown(remembered.id)} is another agent's")
        # A keyed one matches routing keys: what these patterns take cannot be told by topics.
        self.identity.check("subscribe", *((EVERYTHING,) if remembered.keyed else remembered.patterns))

    def hears(self, event: Event) -> bool:
        """Whether this client may get the event, whatever its subscription says."""
        if (identity := self.identity) is None:
            return True
        granted = identity.grants.get("subscribe", ())
        return event.target_agent in {None, identity.name} and matches_any(granted, event.topic)

    def _response(self, frame: Reply) -> Respond:
        self._spend()
        if not frame.event.reply_to.startswith(LIVE):
            raise ProtocolError(f"{shown(frame.event.reply_to)} is not where an answer goes")
        asked = frame.event
        # Making an event of it checks the names.
        Event(topic="reply", event_id=asked.event_id, correlation_id=asked.correlation_id, reply_to=asked.reply_to)
        if self.identity is not None:
            self.account.check_answer(asked.event_id, asked.reply_to)
        return Respond(asked, frame.reply, frame.error, frame.ref)

    def _remember(self, spec: Subscription) -> None:
        """Ids count from 1 in each connection: then clients that want the same get the same bytes."""
        self._count += 1
        self.subscriptions[f"sub-{self._count}"] = spec

    def _known(self, id: str) -> Subscription:
        if id not in self.subscriptions:
            raise SubscriptionNotFound(f"this client has no subscription {shown(id)}")
        return self.subscriptions[id]

    def _named(self, id: str) -> str:
        if not self._known(id).durable:
            raise ProtocolError(f"{id} has no name: nothing of it waits for an acknowledgement")
        return id


def _introduction(frame: ClientFrame | Bad) -> Effect:
    """What follows from the first frame of a client that nobody knows yet."""
    if isinstance(frame, Hello) and isinstance(frame.token, str):
        return Know(frame.token, structs.replace(frame, token=UNSET))
    return Dismiss('say {"type":"hello","token":…} first, or Authorization: Bearer … at the handshake')


def refusal(error: BusError, ref: Ref) -> Send:
    """The error frame for what was not carried out."""
    wait = error.retry_after if isinstance(error, RateLimited) else None
    return Send(Error(ref=ref, error=error.code, message=printable(str(error)), retry_after=wait))


def _spec(wanted: Wanted, agent: str | None) -> Subscription:
    """What the engine is told; an anonymous one belongs to the client's agent, which gets what is targeted to it."""
    if not isinstance(wanted.topics, str) and len(wanted.topics) > _MOST_TOPICS:
        raise NotSupported(f"a subscription has {_MOST_TOPICS} topics at most")
    wish = Wish(
        subscription=wanted.subscription,
        durable=wanted.named,
        start=_start(wanted),
        types=wanted.types,
        priorities=wanted.priorities,
        min_priority=wanted.min_priority,
        sources=wanted.sources,
        lease=30.0 if wanted.lease is None else _within("lease", wanted.lease, _LEASES[1], _LEASES[0]),
    )
    if not wanted.named and (wanted.lease is not None or wanted.max_retries is not None or wanted.start is not None):
        raise ProtocolError("lease, max_retries and start are for named subscriptions")
    return declaration(wanted.topics, wanted.name if wanted.name is not None else agent, wish)


def _start(wanted: Wanted) -> Any:
    text = wanted.start if wanted.start is not None else wanted.after
    if not wanted.named or text is None:
        return "new"
    if text in {"new", "first"}:
        return text
    # A date is no position of the log "2026-01", though it would read as one.
    return utc(text, "start") if ":" in text or _DATE.match(text) else _position("start", text)


def _position(name: str, text: str) -> Position:
    try:
        position = Position.parse(text)
    except ValueError as error:
        raise InvalidEvent(f"{name}: {shown(text)} is not a position") from error
    if not 0 <= position.offset < 2**63:
        raise InvalidEvent(f"{name}: {shown(text)} is not a position")
    return position


def _within(name: str, seconds: float, most: float, least: float = 0.0) -> float:
    if not (0 < seconds <= most and seconds >= least):
        raise ValueError(f"{name}: {seconds:g} is not a number of seconds above 0, from {least:g} to {most:g}")
    return seconds


def _outcome(frame: Nack) -> Outcome:
    if frame.release:
        return GivenBack()
    if frame.pause is not None:
        return Halted(PauseSubscription(frame.pause).seconds(0.0), frame.error[:_TEXT])
    if frame.retry_after is not None:
        return Later(min(max(0.0, frame.retry_after), MAX_DELAY))
    if frame.reject:
        return Rejected(frame.error[:_TEXT] or "rejected by the client", frame.traceback[:_TEXT])
    return Failed(frame.error[:_TEXT] or "failed at the client", frame.traceback[:_TEXT])
