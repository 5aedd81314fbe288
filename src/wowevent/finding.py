"""What was found when an installation was looked at, and what of it is judged alike for every engine; pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

_SKEWED: Final = 1.0  # seconds,
_WRONG: Final = 30.0  # and these: a lease's length


class Verdict(StrEnum):
    """How it is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be seen; the finding says how to look."""
    WARN = "warn"
    """What is promised holds, and is at risk or holds in part."""
    FAIL = "fail"
    """What is promised does not hold."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: str
    """The stable name of what was looked at."""
    verdict: Verdict
    found: str
    promised: str
    """What it is held against."""
    change: str = ""
    """What to do about it; nothing where all is well."""


class Check(Struct, frozen=True):
    """Something to look at: its stable name, and what it is held against."""

    name: str
    promised: str

    def ok(self, found: str) -> Finding:
        """It is as promised."""
        return Finding(check=self.name, verdict=Verdict.OK, found=found, promised=self.promised)

    def warn(self, found: str, change: str) -> Finding:
        """It is at risk."""
        return Finding(check=self.name, verdict=Verdict.WARN, found=found, promised=self.promised, change=change)

    def fail(self, found: str, change: str) -> Finding:
        """It is not as promised."""
        return Finding(check=self.name, verdict=Verdict.FAIL, found=found, promised=self.promised, change=change)

    def unknown(self, found: str, change: str) -> Finding:
        """It cannot be seen; `change` says how to look."""
        return Finding(check=self.name, verdict=Verdict.UNKNOWN, found=found, promised=self.promised, change=change)


Look = Callable[[], Awaitable[Sequence[Finding]]]
"""What looks at something. What it raises is found, too."""

CLOCK: Final = Check("engine.clock", "the engine's clock and this machine's differ by less than a second")

_GRAVITY: Final = (Verdict.OK, Verdict.UNKNOWN, Verdict.WARN, Verdict.FAIL)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The gravest verdict among them."""
    return max((finding.verdict for finding in findings), key=_GRAVITY.index, default=Verdict.OK)


def version_of(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (3, 51, 3) of `3.51.3-rc1`."""
    found = re.match(r"\D{0,1}(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def size(count: float) -> str:
    """Bytes for a person: `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def clock(asked: float, said: float, heard: float) -> Finding:
    """The engine's clock, in Unix seconds, by an answer that it gave between two of ours.

    It may have been said at any moment between: only what lies outside is a difference.
    """
    apart = said - heard if said > heard else min(0.0, said - asked)
    found = f"{abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine" if apart else "the same"
    change = "let NTP (chrony, systemd-timesyncd) keep both clocks; delays, TTLs and `oldest` go by them"
    if abs(apart) > _WRONG:
        return CLOCK.fail(found, change)
    return CLOCK.warn(found, change) if abs(apart) > _SKEWED else CLOCK.ok(found)
