"""A process that has imported what the commands need, and forks one for each that is asked for.

    python tests/zygote.py CONTROL      CONTROL: the number of a Unix socket that it inherits

A Python that starts from nothing needs 0.7 s until it has imported `wowevent`, and most commands 0.1 s for the rest. A
fork of this one is a process like any other: with its own pid, signals, descriptors, exit status and measured coverage,
and its interpreter ends as any other does. Only what the kernel tells of its start (cmdline and environ in /proc) is of
this one.

    tests                        zygote                        command
      │ b"+" and 4 descriptors ──> fork ──────────────────────> │
      │ <──────────────────────── its pid, 4 bytes              │
      │ its order, JSON, up to the end ───────────────────────> │ becomes `python -m MODULE ARGUMENTS…`
      │ <─────────────────────── its exit status, 4 bytes <──── ∎

The descriptors are the order's socket and the command's stdin, stdout and stderr. Nothing here starts a thread or an
event loop: neither outlives a fork. It ends when the tests do, however they do: then CONTROL ends.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Any, Final

Order = dict[str, Any]
"""`module`, `arguments`, `cwd`, `environment`, `terminal`: whether to lead a session whose terminal stdin is."""

COVERED_PROCESSES: Final = "COVERAGE_PROCESS_CONFIG"
"""The setting with which coverage has each process measured that starts."""

NUMBER: Final = struct.Struct("!i")

# What the commands import when they run, beside our own modules.
_LATER: Final = ("rich.live", "rich.progress", "rich.table", "uvloop")
_WATCHED: Final = {signal.SIGINT, signal.SIGCHLD}


def prepare() -> None:
    """Import it all. An engine whose driver is not installed is left out."""
    import wowevent

    names = [module.name for module in pkgutil.walk_packages(wowevent.__path__, "wowevent.")]
    for name in (*names, *_LATER):
        if not name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is here stays here: forks need not look at it again


def serve(control: socket.socket) -> Order | None:
    """Fork what is asked for; returns in each fork with its order, and here with None at the end of `control`."""
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, at whose end this ends
    commands: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _tell(commands)
        if control not in ready:
            continue
        asked, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not asked:
            return None
        order = socket.socket(fileno=descriptors[0])
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # none is lost in a fork that is not ready for it
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            for ours in (control, woken, wake, *commands.values()):
                ours.close()
            return _become(order, descriptors[1:])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        commands[pid] = order
        with suppress(OSError):  # nobody wants to know
            order.sendall(NUMBER.pack(pid))


def _tell(commands: dict[int, socket.socket]) -> None:
    """Say of each command that has ended how."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with commands.pop(pid) as order, suppress(OSError):
                order.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _become(source: socket.socket, descriptors: list[int]) -> Order:
    """Take on what exec and the start of an interpreter would give.

    `sys.stdin`, `.stdout` and `.stderr` stay the same objects, over other files: PYTHONUNBUFFERED, with which all tests
    run commands, leaves nothing in them that depends on the file.
    """
    with source, source.makefile("rb") as file:
        order: Order = json.load(file)
    if order["terminal"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if order["terminal"]:
        take_terminal()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = [order["module"], *order["arguments"]]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    sys.path.insert(0, order["cwd"])
    _measure(COVERED_PROCESSES in order["environment"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    return order


def take_terminal() -> None:
    """Make stdin the terminal of this session, which it leads: Ctrl-C on it is for that."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _measure(asked: bool) -> None:
    """Where coverage measures this process, measure the fork for itself, as coverage's `patch = fork` does, or not."""
    if "coverage.control" not in sys.modules:
        return
    from coverage.control import Coverage, _after_fork_in_child

    if asked:
        _after_fork_in_child()
    elif (ours := Coverage.current()) is not None:
        ours._auto_save = False  # noqa: SLF001 - as coverage itself does after a fork
        ours.stop()


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    prepare()
    found = serve(socket.socket(fileno=int(sys.argv[1])))
    if found is not None:
        runpy.run_module(found["module"], run_name="__main__", alter_sys=True)
