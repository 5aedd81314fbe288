"""`wowevent configure`: the configuration file, by a short dialogue or by flags.

What it says counts below the environment and below flags. Only what differs from the defaults has to be in it.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import tomli_w
import typer

from wowevent.access.address import is_loopback
from wowevent.brokers import open_broker
from wowevent.cli.engine import note
from wowevent.cli.exits import CommandError
from wowevent.cli.pidfile import find
from wowevent.cli.private import write_private
from wowevent.cli.show import facts, print_json
from wowevent.errors import BusError, NotPermitted
from wowevent.settings import Settings, check_config, config_path, masked, parse_config, variables

_ASKED: Final = {
    "url": "Engine, a URL; - for an embedded log",
    "host": "Host to listen on",
    "port": "WebSocket port",
    "http_port": "HTTP port",
    "log_level": "Log level",
    "namespace": "Namespace",
}
"""What the dialogue asks for."""
_NONE: Final = "-"
_NO_FLAGS: Final = "without a terminal it wants flags, such as --port 9191; --help names them"

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting; VALUE as in TOML, or text.")
]


def configure(  # noqa: PLR0917 - the options of a command
    url: Annotated[str | None, typer.Option(help="The engine.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The namespace.")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option(help="The WebSocket router's port.")] = None,
    http_port: Annotated[int | None, typer.Option(help="The HTTP port.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous/--no-allow-anonymous", help="Let others in without a token.")
    ] = None,
    set: Set = None,
    unset: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Back to the default.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print all settings, and where each comes from.")] = False,
    path: Annotated[bool, typer.Option("--path", help="Print where the file is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --show: one object.")] = False,
) -> None:
    """Write the configuration file: with flags at once, without them by asking.

    A service that runs takes it in with `wowevent restart`.
    """
    file = config_path()
    flags = {
        "url": url, "namespace": namespace, "host": host, "port": port, "http_port": http_port,
        "log_level": log_level, "log_format": log_format, "allow_anonymous": allow_anonymous,
    }  # fmt: skip
    changes = {name: value for name, value in flags.items() if value is not None} | dict(map(_assigned, set or ()))
    if json and not show:
        raise CommandError("usage", "--json goes with --show")
    if (show or path) and (changes or unset):
        raise CommandError("usage", "--show and --path change nothing: leave them out, or the other flags")
    if path:
        print(file)
    elif show:
        _show(file, json=json)
    elif changes or unset:
        _write(file, changed(parse_config(file), changes, unset or ()))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        _write(file, ask(parse_config(file), file))
    else:
        raise CommandError("usage", _NO_FLAGS)


def _assigned(text: str) -> tuple[str, Any]:
    """The name and the value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError("usage", f"--set {text!r:.80}: NAME=VALUE")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value


def changed(said: dict[str, Any], changes: dict[str, Any], unset: list[str] | tuple[()]) -> dict[str, Any]:
    """What the file is to say; CommandError for a name to unset that is neither a setting nor in the file."""
    for name in unset:
        if name not in said and name not in Settings.model_fields:
            raise CommandError("usage", f"--unset {name!r:.80}: settings are {', '.join(Settings.model_fields)}")
    return {name: value for name, value in (said | changes).items() if name not in unset}


# --- the dialogue ---------------------------------------------------------------------------------------------------


def ask(said: dict[str, Any], file: Path) -> dict[str, Any]:
    """What the file is to say, as a person at the terminal answers; Enter leaves a setting as it is."""
    check_config(said, file)
    print(f"Settings for {file}. Enter keeps what is shown in brackets, Ctrl-C changes nothing.")
    for name, question in _ASKED.items():
        _ask(said, name, question)
        if name == "host" and not is_loopback(_value(said, "host")) and not _guarded(said):
            allowed = typer.confirm("Others can reach it. Let them in without a token?", default=False)
            said |= {"allow_anonymous": True} if allowed else {"host": _default("host")}
            if not allowed:
                print(f"  then it listens on {said['host']}")
    return said


def _ask(said: dict[str, Any], name: str, question: str) -> None:
    """Ask until the answer is one that can be used."""
    now = _value(said, name)
    shown = masked(now) if name == "url" and now else now
    while True:
        answer = typer.prompt(f"{question} [{shown or 'embedded log'}]", default="", show_default=False).strip()
        if not answer:
            return
        if name == "url" and answer == _NONE:
            said.pop("url", None)
            return
        value = int(answer) if answer.isdecimal() and isinstance(_default(name), int) else answer
        if problem := _problem({**said, name: value}):
            print(f"  {problem}")
            continue
        said[name] = value
        return


def _problem(said: dict[str, Any]) -> str:
    """What is wrong with it, a host that needs a permission aside; nothing if all is well."""
    try:
        _check({**said, "allow_anonymous": True}, Path("that"))
    except (ValueError, BusError) as error:
        return str(error).removeprefix("that: ")
    return ""


def _value(said: dict[str, Any], name: str) -> Any:
    return said.get(name, _default(name))


def _default(name: str) -> Any:
    return Settings.model_fields[name].default


# --- the file -------------------------------------------------------------------------------------------------------


def _check(said: dict[str, Any], file: Path) -> None:
    """Raises ValueError, NotSupported or NotPermitted for what no service could be started with."""
    check_config(said, file)
    if url := said.get("url"):
        open_broker(url)
    http_port = _value(said, "http_port")
    if http_port and http_port == _value(said, "port"):
        raise ValueError(f"{file}: port and http_port are both {http_port}")
    host = _value(said, "host")
    if not is_loopback(host) and not _guarded(said):
        raise NotPermitted(
            f"{host} can be reached by others; name a file of tokens (--set tokens=FILE), or say --allow-anonymous if "
            "that is meant"
        )


def _guarded(said: dict[str, Any]) -> bool:
    """Whether it is settled who may come from elsewhere: whoever has a token, or anybody."""
    return any(said.get(name) for name in ("allow_anonymous", "tokens", "jwt_keys"))


def _write(file: Path, said: dict[str, Any]) -> None:
    """Check and write it, and say what else there is to know."""
    notes = save(file, said)
    print(f"wrote {file}")
    for each in notes:
        note(each)


def save(file: Path, said: dict[str, Any]) -> list[str]:
    """Check and write it; what else there is to know. Raises ValueError, NotSupported or NotPermitted."""
    _check(said, file)
    write_private(file, tomli_w.dumps(said).encode())
    notes: list[str] = []
    if str(said.get("url", "")).startswith("sqlite:///") and not said["url"].startswith("sqlite:////"):
        notes.append(
            f"{masked(said['url'])} is another file in each folder that a command is run in; "
            "four slashes begin a full path"
        )
    counting = {name: next((each for each in variables(name) if each in os.environ), None) for name in said}
    notes += [
        f"{by} is set in the environment, and counts more than {name} here" for name, by in counting.items() if by
    ]
    if find(Settings().data_dir).process is not None:
        notes.append("a service runs; wowevent restart makes it take this in")
    return notes


def described(file: Path) -> dict[str, Any]:
    """`file`, every one of the `settings`, and of each in `sources` where it comes from; passwords are masked."""
    said = parse_config(file)
    settings = Settings()
    values = {name: _shown(name, getattr(settings, name)) for name in Settings.model_fields}
    return {"file": str(file), "settings": values, "sources": {name: _source(name, said) for name in values}}


def _show(file: Path, *, json: bool) -> None:
    """Every setting, with where it comes from; passwords in URLs are masked."""
    found = described(file)
    if json:
        print_json(found)
        return
    sources = found["sources"]
    rows = [(name, f"{_for_people(value)}  ({sources[name]})") for name, value in found["settings"].items()]
    facts([("file", f"{file}{'' if file.exists() else ' (not there)'}"), *rows])


def _shown(name: str, value: Any) -> Any:
    if name in {"url", "redis_url"} and value:
        return masked(value)
    if value and (name == "token" or (name in {"tokens", "jwt_keys"} and value.lstrip().startswith("{"))):
        return "***"
    return str(value) if isinstance(value, Path) else value


def _for_people(value: Any) -> str:
    match value:
        case None | ():
            return "-"
        case bool():
            return str(value).lower()
        case tuple():
            return " ".join(map(str, value))
        case _:
            return str(value)


def _source(name: str, said: dict[str, Any]) -> str:
    variable = next((each for each in variables(name) if each in os.environ), None)
    return f"environment, {variable}" if variable else "file" if name in said else "default"
