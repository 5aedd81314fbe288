"""What the machine gives a process: a clock that is kept right, and files to open."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

from wowevent.finding import Check, Finding

KEPT: Final = Check("machine.clock", "a clock that NTP keeps: delays, TTLs, tokens and what people read go by it")
FILES: Final = Check("machine.files", "1,000 clients at once, each an open file, and a hundred files beside them")
CHECKS: Final = (KEPT, FILES)

_CLIENTS: Final = 1_000
_BESIDE: Final = 100
_ROOM: Final = 1024  # bytes: the kernel's struct timex has 208
_UNKEPT: Final = 5  # TIME_ERROR


def looks() -> dict[Check, Callable[[], list[Finding]]]:
    """By check."""
    return {KEPT: lambda: [kept(_state())], FILES: lambda: [files(_most())]}


def _state() -> int | None:
    """What the kernel says of its clock (adjtimex(2), which changes nothing when asked so); None if it does not."""
    try:
        ask = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError, TypeError):
        return None
    said = int(ask(ctypes.create_string_buffer(_ROOM)))
    return said if said >= 0 else None


def kept(state: int | None) -> Finding:
    """By what adjtimex says."""
    if state is None:
        return KEPT.unknown("the system does not tell", "look with: timedatectl, or chronyc tracking")
    if state == _UNKEPT:
        return KEPT.warn("the kernel knows of nothing that keeps it", "run chrony or systemd-timesyncd (on the host)")
    return KEPT.ok("synchronised")


def _most() -> int | None:
    """How many files a process may have open; None for any number."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def files(most: int | None) -> Finding:
    """By the limit of open files."""
    if most is None:
        return FILES.ok("no limit")
    if most < _CLIENTS + _BESIDE:
        return FILES.warn(
            f"{most} files: about {max(0, most - _BESIDE)} clients",
            "ulimit -n 65536 before it starts; in a systemd unit LimitNOFILE=65536, in a compose file ulimits: nofile",
        )
    return FILES.ok(f"{most} files")
