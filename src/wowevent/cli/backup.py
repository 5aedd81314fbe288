"""`wowevent backup`, `verify` and `restore`: the embedded log as one file, whether that is sound, and back again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec import structs

from wowevent.brokers import embedded_path
from wowevent.cli.engine import Namespace, note, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.progress import progress
from wowevent.cli.show import counted, print_json
from wowevent.errors import NotSupported, StorageDamaged, plain
from wowevent.settings import Settings

if TYPE_CHECKING:
    from wowevent.brokers.sqlite.backup import Manifest
    from wowevent.brokers.sqlite.check import Checked, Holdings

Url = Annotated[
    str | None, typer.Option(help="The log: sqlite:///path.", show_default="WOWEVENT_URL, else an embedded log")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]

_STEPS: Final = {"copying": "MB", "digest": "MB", "checking": "events"}
_ELSEWHERE: Final = "`wowevent copy --to sqlite:///FILE` brings its history into a file"
_INSTEAD: Final = {
    "memory": "it is gone with its process",
    "redis": f"a Redis is backed up by its own means (BGSAVE, the append-only file), and {_ELSEWHERE}",
    "amqp": f"RabbitMQ exports its definitions and no messages; {_ELSEWHERE}",
    "nats": f"a NATS is backed up by its own means (nats stream backup), and {_ELSEWHERE}",
}
_SCHEMES: Final = {"rediss": "redis", "unix": "redis", "amqps": "amqp", "tls": "nats"}


def backup(  # noqa: PLR0917 - the options of a command
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file, once the new one is whole.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Look at every event that was copied.")] = True,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Copy an embedded log, as it is at one moment, into one file that tells whether it is still what was written.

    Who publishes and handles goes on meanwhile. The file is there when it is whole and on the disk, or not at all.
    """
    from wowevent.brokers.sqlite.backup import back_up

    settings, path = _log(url, namespace, "backup")
    if file.resolve() in {Path(f"{Path(path).resolve()}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")}:
        raise CommandError("usage", f"{file} is the log itself")
    if file.exists() and not file.is_file():
        raise CommandError("usage", f"{file} is no file, and is not replaced by one")
    if file.exists() and not force:
        raise CommandError("usage", f"{file} is there already: --force replaces it")
    _clean_up_when_ended()
    with progress(_STEPS) as told:
        manifest, found = back_up(path, file, checks=verify, told=told)
    if json:
        print_json({"file": str(file), "url": settings.shown_url(), **_fields(manifest, found)})
    else:
        looked = "" if found is None or found.trouble else ", and every event is what was written"
        print(f"backed up {_held(manifest.held)} into {plain(str(file))}, {manifest.size / 1e6:,.1f} MB{looked}")
    if found is not None and found.trouble:
        raise StorageDamaged(f"the log was copied as it is, and is damaged: {found.trouble}")


def verify(
    file: Annotated[Path | None, typer.Argument(help="A backup; without one a log.", show_default="a log")] = None,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Look at all of a backup, or of an embedded log that may be in use: digest, tables, every event's checksum.

    Nothing is changed. What is wrong is named by its position, and the status is 74.
    """
    if file is None:
        _verify_log(url, namespace, json=json)
        return
    if url is not None or namespace is not None:
        raise CommandError("usage", "a FILE, or --url and --namespace: one of the two")
    from wowevent.brokers.sqlite.backup import verify as look

    with progress(_STEPS) as told:
        seen = look(file, told)
    if json:
        print_json({"file": str(file), **_fields(seen.manifest, seen.found), "trouble": seen.trouble})
    elif not seen.trouble:
        made = f"made {seen.manifest.made_at:%Y-%m-%d %H:%M:%S} UTC by WowEvent {plain(seen.manifest.version)}"
        print(f"{plain(str(file))} is sound: {_held(seen.manifest.held)}, {made}")
    if seen.trouble:
        raise StorageDamaged(f"{file}: {seen.trouble}")


def _verify_log(url: str | None, namespace: str | None, *, json: bool) -> None:
    from wowevent.brokers.sqlite.backup import translating
    from wowevent.brokers.sqlite.check import check, connect_log

    settings, path = _log(url, namespace, "verify")
    with progress(_STEPS) as told, translating():
        db = connect_log(path)
        try:
            found = check(db, told)
        finally:
            db.close()
    if json:
        print_json({"url": settings.shown_url(), **structs.asdict(found.held), **_findings(found)})
    elif not found.trouble:
        print(f"{settings.shown_url()} is sound: {_held(found.held)}")
    if found.trouble:
        raise StorageDamaged(f"{path}: {found.trouble}")


def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    force: Annotated[bool, typer.Option("--force", help="Also where a log is: it is kept aside.")] = False,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Make a log of a backup, once all of it was looked at. No process may have that log open.

    A log that is there gets another name, with the date. Subscriptions go on where they were when the backup was
    made; whoever comes with a position of before hears PositionLost.
    """
    from wowevent.brokers.sqlite.restore import restore as put

    settings, path = _log(url, namespace, "restore")
    if Path(path).exists() and not force:
        raise CommandError("usage", f"there is a log at {path}: --force keeps it under another name")
    _clean_up_when_ended()
    with progress(_STEPS) as told:
        done = put(file, path, force=force, told=told)
    aside = None if done.aside is None else str(done.aside)
    if json:
        fields = _fields(done.manifest, done.found) | {"epoch": done.epoch, "aside": aside}
        print_json({"file": str(file), "url": settings.shown_url(), **fields})
    else:
        print(f"restored {_held(done.manifest.held)} into {settings.shown_url()}; its positions are {done.epoch}-… now")
        if aside is not None:
            print(f"the log that was there is {plain(aside)}")
    if done.found.trouble:
        note(f"the log was damaged before it was backed up: {plain(done.found.trouble)}")


def _clean_up_when_ended() -> None:
    """What a service manager or `timeout` ends, leaves as little behind as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _log(url: str | None, namespace: str | None, command: str) -> tuple[Settings, str]:
    """The settings, and the file that they name; NotSupported, with what to do instead, for another engine."""
    settings = settle(url=url, namespace=namespace)
    scheme = settings.engine_url().partition("://")[0].partition("+")[0]
    if scheme == "sqlite":
        return settings, embedded_path(settings.engine_url(), settings.namespace)
    instead = _INSTEAD.get(_SCHEMES.get(scheme, scheme), "it is not known here")
    raise NotSupported(f"{command} is for the embedded log, and this is {scheme}://: {instead} (docs/backup.md)")


def _held(held: Holdings) -> str:
    """What there is, for people."""
    places = f" ({held.epoch}-{held.first} to {held.epoch}-{held.last})" if held.events else ""
    parts = [f"{counted(held.events, 'event')}{places}", counted(held.subscriptions, "subscription")]
    parts += [counted(held.dead_letters, "dead letter")] if held.dead_letters else []
    parts += [counted(held.delayed, "delayed event")] if held.delayed else []
    return ", ".join(parts)


def _fields(manifest: Manifest, found: Checked | None) -> dict[str, Any]:
    """The same for programs."""
    fields = structs.asdict(manifest) | structs.asdict(manifest.held)
    del fields["held"]
    return fields | _findings(found)


def _findings(found: Checked | None) -> dict[str, Any]:
    if found is None:
        return {"trouble": None, "wrong": None}
    return {"trouble": found.trouble, "wrong": found.wrong}
