"""What the clients of one agent have together on one router: how many they are, and the requests that came to them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from wowevent.errors import NotPermitted

_ASKED: Final = 4_096  # requests that an agent may have in its hands


class Account:
    """One agent's."""

    def __init__(self) -> None:
        self.clients: int = 0
        """Its sockets."""
        self._asked: OrderedDict[str, str] = OrderedDict()  # where the answers go, by the id of the request

    def note(self, event_id: str, reply_to: str) -> None:
        """This request was brought to it."""
        self._asked[event_id] = reply_to
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)

    def check_answer(self, event_id: str, reply_to: str) -> None:
        """NotPermitted for an answer to a request that it did not get here."""
        if self._asked.get(event_id) != reply_to:
            raise NotPermitted(f"request {event_id} did not come to this agent here: it cannot answer it")
