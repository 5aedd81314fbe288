"""Who did what: a line of the log for what changes something, and for what was refused.

    INFO     audit action=purge who=ops token=9f1c… outcome=done subscription=worker~task.*
    WARNING  audit action=publish who=worker-1 token=… outcome=refused topic=pay.out more=311

Never a secret, never a payload. Events are not here: the log of events has each with who published it.
"""

from __future__ import annotations

import getpass
import time
from typing import Any, Final

from wowevent.access.rights import Identity
from wowevent.log import logger

_EVERY: Final = 1.0  # seconds between two lines about refusals of the same action to the same
_MOST: Final = 1000  # pairs that are remembered for that

_refused: dict[tuple[str, str], tuple[float, int]] = {}  # when the last line was, and how many had none since


def audit(action: str, who: Identity | None, *, outcome: str = "done", **facts: Any) -> None:
    """Say it; `who` is None for nobody that is known. Of refusals one a second each, which says how many `more`."""
    name, token = ("nobody", "") if who is None else (who.name, who.token_id)
    said = {"action": action, "who": name, "token": token, "outcome": outcome, **facts}
    if outcome != "refused":
        logger.info("audit", **said)
        return
    more = _due((name, action), time.monotonic())
    if more is not None:
        logger.warning("audit", **said, **({"more": more} if more else {}))


def local_user() -> str:
    """Who runs this process, as far as the system says; else nothing."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return ""


def _due(pair: tuple[str, str], now: float) -> int | None:
    """How many had no line since the last one; None if it is too early for another."""
    last, more = _refused.pop(pair, (-_EVERY, 0))
    if now - last < _EVERY:
        _refused[pair] = last, more + 1
        return None
    _refused[pair] = now, 0
    if len(_refused) > _MOST:
        del _refused[next(iter(_refused))]
    return more
