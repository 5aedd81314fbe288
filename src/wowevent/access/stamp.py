"""What is published says of itself what the token says, and nothing that only the bus may say."""

from __future__ import annotations

from msgspec import structs

from wowevent.access.rights import Identity
from wowevent.broker import LIVE
from wowevent.event import Event
from wowevent.resent import RESENT


def stamped(event: Event, identity: Identity) -> Event:
    """The event as published by `identity`.

    Where the answer to a request goes is the bus's own to say: with another's address, and the id of their request, who
    is brought his own event could answer for whoever was asked. So is that an event is the correction of another: it
    would go past everybody but one subscription.
    """
    address = event.reply_to if event.reply_to is None or not event.reply_to.startswith(LIVE) else None
    head = event.head if RESENT not in event.head else {k: v for k, v in event.head.items() if k != RESENT}
    return structs.replace(event, source_agent=identity.name, reply_to=address, head=head)
