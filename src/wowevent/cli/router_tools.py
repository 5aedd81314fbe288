"""What an agent may do to the service of this machine: the commands start, stop, status, configure, logs, doctor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.aside import aside
from wowevent.cli.configure import changed, described, save
from wowevent.cli.daemon import end_service
from wowevent.cli.doctor import look as examine
from wowevent.cli.exits import CommandError
from wowevent.cli.launch import launch
from wowevent.cli.logs import recent
from wowevent.cli.serve import settings_of
from wowevent.cli.status import facts_of
from wowevent.cli.status import look as ask
from wowevent.cli.stopping import PATIENCE
from wowevent.errors import BusError, NotPermitted, plain
from wowevent.finding import Verdict
from wowevent.mcp.call import Call
from wowevent.mcp.problem import Refusal
from wowevent.mcp.tool import Nothing, Tool
from wowevent.settings import Settings, config_path, parse_config

_SETTABLE: Final = frozenset(
    {"url", "namespace", "host", "port", "http_port", "log_level", "log_format", "max_payload", "max_body"}
)
"""Not who may come in: tokens, keys, TLS, allow_anonymous, origins and hosts are a person's to decide."""

_LINES: Final = 40  # lines of the log that troubleshoot shows
_WIDEST: Final = 1000  # characters of a line

Port = Annotated[int, Meta(ge=0, le=65_535)]


async def router_status(_: Call, __: Nothing) -> dict[str, Any]:
    """Whether the service of this machine runs (WebSocket router and HTTP), where, and how it is; and its settings.

    Answers {state: running | unhealthy | not_answering | not_running, pid, uptime, http, websocket, engine, namespace,
    log, version, health, configuration}; what is secret is masked. Answers within two seconds.
    """
    return await ask(Settings()) | {"configuration": described(config_path())}


class Logs(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which lines."""

    lines: Annotated[int, Meta(description="How many of the last lines.", ge=1, le=200)] = 50
    level: Annotated[str, Meta(description="That level and above.", pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"


async def router_logs(_: Call, asked: Logs) -> dict[str, Any]:
    """The last lines of the service's log, whether it runs or not. Answers {lines}. Errors: io_error: no log yet."""
    return {"lines": await aside(partial(_lines, asked.lines, asked.level))}


async def troubleshoot(_: Call, __: Nothing) -> dict[str, Any]:
    """Find out what is wrong and what to change: the engine, this machine, the settings, and the service's log.

    Answers {verdict: ok | unknown | warn | fail, engine, promise, findings, counts, service, log}. `findings` are
    those that are not ok: {check, verdict, found, promised, change}, and `change` says what to do. `log` are the last
    lines of WARNING and above. Changes nothing, ends within 20 seconds.
    """
    report = await examine({})
    found: dict[str, Any] = msgspec.to_builtins(report)
    wrong = [each for each in found["findings"] if each["verdict"] != Verdict.OK]
    try:
        log = await aside(partial(_lines, _LINES, "WARNING"))
    except (CommandError, OSError, ValueError, BusError):  # what is wrong with it was found above, or it is not there
        log = []
    try:
        service = await ask(Settings())
    except (OSError, ValueError, BusError) as error:
        service = {"state": "unknown", "trouble": str(error)}
    return found | {"findings": wrong, "service": service, "log": log}


class Start(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to start it; what is not given is as configured."""

    url: Annotated[str, Meta(description="The engine.", max_length=1000)] | None = None
    namespace: Annotated[str, Meta(max_length=128)] | None = None
    port: Annotated[Port, Meta(description="The WebSocket router's port.")] | None = None
    http_port: Annotated[Port, Meta(description="The HTTP port.")] | None = None
    workers: Annotated[int, Meta(description="Processes that share the ports.", ge=1, le=64)] | None = None


async def router_start(call: Call, asked: Start) -> dict[str, Any]:
    """Start the service of this machine in the background; answers once it serves, within 15 seconds.

    Answers {state: started | running, pid, http, websocket, engine, …}; one that runs already is left as it is.
    Errors: address_in_use, not_started (router_logs says why), config.
    """
    options = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not None}
    record, fresh = await aside(lambda: launch(options, settings_of(options), Path.cwd()))
    if fresh:
        call.note("router start", pid=record.pid)
    return {"state": "started" if fresh else "running", **facts_of(record)}


class Stop(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to end it."""

    force: Annotated[bool, Meta(description="Kill it if it has not ended in time.")] = False


async def router_stop(call: Call, asked: Stop) -> dict[str, Any]:
    """End the service of this machine: it finishes what is under way, for 20 seconds at most. Nothing durable is lost.

    Answers {state: stopped | not_running, pid, seconds, killed}. Errors: not_stopped.
    """
    found = await aside(lambda: end_service(Settings(), PATIENCE, force=asked.force))
    if found["state"] == "stopped":
        call.note("router stop", pid=found["pid"], killed=found["killed"])
    return found


class Configure(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change in the configuration file."""

    set: Annotated[dict[str, str | int], Meta(description="Settings by name, as router_status shows them.")] = {}
    unset: Annotated[list[str], Meta(description="Settings that go back to their defaults.")] = []


async def router_configure(call: Call, asked: Configure) -> dict[str, Any]:
    """Change the configuration file; a service that runs takes it in once it is stopped and started.

    Settable: url, namespace, host, port, http_port, log_level, log_format, max_payload, max_body. Who may come in
    (tokens, TLS, anonymous access) is a person's to decide, with `wowevent configure`.
    Answers {file, notes}. Errors: config (names the setting), not_permitted, not_supported (no such engine).
    """
    if closed := sorted({*asked.set, *asked.unset} - _SETTABLE):
        raise NotPermitted(f"{closed[0]!r:.80} is not among {', '.join(sorted(_SETTABLE))}: a person sets that")
    if not (asked.set or asked.unset):
        raise Refusal("invalid_arguments", "router_configure: give something to set or to unset")
    file = config_path()
    said = changed(parse_config(file), dict(asked.set), list(asked.unset))
    notes = await aside(partial(save, file, said))
    call.note("router configure", set=" ".join(sorted(asked.set)), unset=" ".join(sorted(asked.unset)))
    return {"file": str(file), "notes": notes}


def _telling(call: Callable[[Call, Any], Awaitable[Any]]) -> Callable[[Call, Any], Awaitable[Any]]:
    """The same, with what a command refuses as a tool's refusal."""

    @wraps(call)
    async def told(*given: Any) -> Any:
        try:
            return await call(*given)
        except CommandError as error:
            raise Refusal(error.code, str(error)) from error

    return told


def _lines(count: int, level: str) -> list[str]:
    return [plain(line.expandtabs())[:_WIDEST] for line in recent(count, level)]


ROUTER_TOOLS: Final = (
    Tool(call=_telling(router_status), rights=("admin",), here=True),
    Tool(call=_telling(router_logs), arguments=Logs, rights=("admin",), here=True),
    Tool(call=_telling(troubleshoot), rights=("admin",), here=True),
    Tool(call=_telling(router_start), arguments=Start, rights=("admin",), changes=True, here=True),
    Tool(call=_telling(router_stop), arguments=Stop, rights=("admin",), changes=True, here=True),
    Tool(call=_telling(router_configure), arguments=Configure, rights=("admin",), changes=True, here=True),
)
"""By HTTP for who administers, and never for who shows no token: the log file is for its owner to read."""
