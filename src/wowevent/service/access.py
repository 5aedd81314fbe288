"""Who may ask the service, and for what.

Without tokens that is whoever reaches the port, but no web page by way of a visitor's browser. With tokens each request
brings one (RFC 6750), and what it may do is what that grants:

admit     at the door of every operation but the open ones: the page, the token, how often, any grant of the kind at all
permit    in the operation: these very patterns
sight     of what is answered: the events that may be seen
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from wowevent.access import stamp
from wowevent.access.address import carries_token, check_page
from wowevent.access.audit import audit
from wowevent.access.sight import sees_event
from wowevent.errors import NotPermitted, Unauthenticated, shown

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.access.keyring import Keyring
    from wowevent.access.rights import Identity
    from wowevent.event import Event

ANYBODY: Final = ()
"""The rights of an operation that any valid token may ask for."""

_BEARER: Final = re.compile(r"(?i:Bearer) +([A-Za-z0-9._~+/=-]+) *")


def admit(request: Request, rights: Collection[str]) -> None:
    """Note who asks; `rights` are those of which one has to be granted at all, for whatever pattern.

    Raises NotPermitted for a Host that is not ours, for an Origin that is neither ours nor allowed, and for who has
    none of the rights; Unauthenticated for no valid token; RateLimited for who asks too often.
    """
    state, headers = request.app.state, request.headers
    check_page(headers.get("host", ""), headers.get("origin"), hosts=state.hosts, origins=state.origins)
    if state.keyring is None:
        return
    identity = request.state.identity = _identified(request, state.keyring)
    state.rates.spend(identity, "requests")
    if rights and not any(identity.grants.get(right) for right in rights):
        raise NotPermitted(f"this token does not grant {' or '.join(rights)}")


def asker(request: Request) -> Identity | None:
    """Who asks; None where nobody is asked for a token."""
    return getattr(request.state, "identity", None)


def name_of_asker(request: Request) -> str:
    """Whose token it is; empty where nobody is asked for one."""
    identity = asker(request)
    return "" if identity is None else identity.name


def is_stranger(request: Request) -> bool:
    """Whether tokens are asked for, and who asks for what is open shows none that is good."""
    keyring: Keyring | None = request.app.state.keyring
    if keyring is None:
        return False
    try:
        _identified(request, keyring)
    except Unauthenticated:
        return True
    return False


def permit(request: Request, right: str, patterns: Sequence[str] | None) -> None:
    """NotPermitted unless each of the patterns is granted; no patterns is all there is."""
    identity = asker(request)
    if identity is None:
        return
    if not patterns and not identity.may(right):
        raise NotPermitted(
            f"this token does not grant {right} on '#', which is what no pattern means; "
            f"ask for {' or '.join(map(shown, identity.grants.get(right, ())))}"
        )
    identity.check(right, *(patterns or ()))


def sight(request: Request, right: str) -> Callable[[Event], bool] | None:
    """Whether an event may be seen: by its topic, and by whom it is for. None: all of them."""
    identity = asker(request)
    if identity is None or (identity.may(right) and identity.may("admin")):
        return None
    return partial(sees_event, identity, right)


def standing(request: Request) -> Callable[[], bool] | None:
    """Whether the token still holds; None where there is none."""
    keyring, identity = request.app.state.keyring, asker(request)
    return None if identity is None else lambda: keyring.stands(identity)


def check_standing(request: Request) -> None:
    """Unauthenticated for a token that ended while the request came, which may have taken its time."""
    stands = standing(request)
    if stands is not None and not stands():
        raise Unauthenticated("this token is not valid any more", "it ended while the request came")


def stamped(request: Request, events: Sequence[Event]) -> Sequence[Event]:
    """The events as published by who asks; NotPermitted for one of another agent, or on a topic that is not granted."""
    identity = asker(request)
    if identity is None:
        return events
    for event in events:
        identity.check("publish", event.topic)
        if event.source_agent not in {"", identity.name}:
            raise NotPermitted(f"this token publishes as {identity.name}, and the event says {event.source_agent}")
    request.app.state.rates.spend(identity, "events", len(events))
    return [stamp.stamped(event, identity) for event in events]


def note(request: Request, action: str, **facts: Any) -> None:
    """A line of the audit log, where it is known who asks."""
    if (identity := asker(request)) is not None:
        audit(action, identity, **facts)


def _identified(request: Request, keyring: Keyring) -> Identity:
    if carries_token(f"?{request.url.query}"):
        raise Unauthenticated("a token goes into `Authorization: Bearer …`, never into a URL", "in the URL")
    given = request.headers.getlist("authorization")
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if given and found is None:
        raise Unauthenticated("say `Authorization: Bearer TOKEN`, once", "malformed")
    return keyring.identify(found[1] if found else "")
