"""Folders and files that are ours: whether they can be used, by us alone, and how much room there is."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from wowevent.errors import BusError
from wowevent.finding import Check, Finding, size
from wowevent.settings import Settings, config_path, parse_config, read_config

CONFIG: Final = Check("files.config", "a configuration file that can be read, or none; with a password in it 0600")
FOLDER: Final = Check("files.data", "a data directory of its owner's alone (0700)")
ROOM: Final = Check("files.room", "1 GiB of room for logs and an embedded log")
SECRETS: Final = Check("files.secrets", "files of tokens and keys that their owner alone reads (0600)")
CHECKS: Final = (CONFIG, FOLDER, ROOM, SECRETS)

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITTEN: Final = stat.S_IWGRP | stat.S_IWOTH
_PLENTY: Final = 2**30
_NONE: Final = 16 * 2**20
_HELD: Final = ("tokens", "jwt_keys", "tls_key")
"""Settings that name a file with a secret in it."""


def looks(settings: Settings) -> dict[Check, Callable[[], list[Finding]]]:
    """By check."""
    folder, embedded = settings.data_dir, settings.url is None
    return {
        CONFIG: lambda: [config(config_path())],
        FOLDER: lambda: [data(folder, embedded=embedded)],
        ROOM: partial(_room, folder),
        SECRETS: lambda: [secrets(_named(settings))],
    }


def config(path: Path) -> Finding:
    """The configuration file; what it says is checked, and not shown."""
    try:
        if not path.exists():
            return CONFIG.ok(f"none at {path}: the environment and the defaults hold")
        said = parse_config(path)
        read_config(path)
    except (ValueError, BusError, OSError) as error:
        return CONFIG.fail(str(error), "wowevent configure --show says what counts; --set NAME=VALUE, --unset NAME")
    mode = path.stat().st_mode
    if mode & _OTHERS and _secret(said):
        return CONFIG.fail(f"{path} has a login or a key, and others may read it ({_mode(mode)})", f"chmod 600 {path}")
    if mode & _WRITTEN:
        return CONFIG.fail(f"others may write {path} ({_mode(mode)})", f"chmod 600 {path}")
    return CONFIG.ok(f"{path} ({_mode(mode)})")


def _secret(said: dict[str, Any]) -> bool:
    urls = f"{said.get('url', '')} {said.get('redis_url', '')}"
    keys = str(said.get("jwt_keys", "")).lstrip().startswith("{")  # else it names their file
    return keys or "token" in said or "@" in urls or "password=" in urls


def data(folder: Path, *, embedded: bool) -> Finding:
    """The data directory: `embedded`, the engine's log is there. Nothing else has to be, and none need be made."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return FOLDER.ok(f"{folder} is not there; who needs it makes it (0700)")
    except NotADirectoryError:
        status = None
    if status is None or not stat.S_ISDIR(status.st_mode):
        return FOLDER.fail(f"{folder} is no folder", "name another one: WOWEVENT_DATA_DIR")
    return _folder(folder, status.st_mode, ours=status.st_uid == os.geteuid(), embedded=embedded)


def _folder(folder: Path, mode: int, *, ours: bool, embedded: bool) -> Finding:
    found, close = f"{folder} ({_mode(mode)})", f"chmod {700 if ours else 'o-rwx'} {folder}"
    if mode & (_WRITTEN if ours else stat.S_IWOTH) and not mode & stat.S_ISVTX:
        said = f"{found}: others may put files there"
        if ours or embedded:
            return FOLDER.fail(said, close)
        return FOLDER.warn(said, f"nothing in a container, where there are no others; else, by its owner, {close}")
    if not _may(folder, os.W_OK | os.X_OK):
        change = "mount a volume there, or name another one: WOWEVENT_DATA_DIR"
        said = f"{found} cannot be written"
        return FOLDER.fail(said, change) if embedded else FOLDER.ok(f"{said}, and need not be: the log is elsewhere")
    if mode & (_OTHERS if ours else stat.S_IRWXO):
        return FOLDER.warn(f"{found}: others may look into it", close)
    return FOLDER.ok(found)


def _room(folder: Path) -> list[Finding]:
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path.cwd())
    return [room(there, shutil.disk_usage(there).free)]


def room(there: Path, free: int) -> Finding:
    """By the bytes that are free there."""
    found = f"{size(free)} free at {there}"
    change = "make room, or name a data directory elsewhere: WOWEVENT_DATA_DIR"
    if free < _NONE:
        return ROOM.fail(found, change)
    return ROOM.warn(found, change) if free < _PLENTY else ROOM.ok(found)


def _named(settings: Settings) -> dict[str, Path]:
    """The files that settings name; a value that is the content itself is none."""
    given = {name: str(getattr(settings, name) or "") for name in _HELD}
    return {name: Path(value) for name, value in given.items() if value and not value.lstrip().startswith("{")}


def secrets(files: dict[str, Path]) -> Finding:
    """By the modes of those files."""
    missing = [name for name, file in files.items() if not file.exists()]
    if missing:  # what it says may be the secret itself, by mistake
        said = f"what {' and '.join(missing)} names is not there"
        return SECRETS.fail(said, "name a file that is there, or leave the setting out")
    open_ = [file for file in files.values() if _exposed(file.stat())]
    if open_:
        modes = ", ".join(f"{file} ({_mode(file.stat().st_mode)})" for file in open_)
        return SECRETS.fail(f"others may read or write {modes}", f"chmod 600 {' '.join(map(str, open_))}")
    unread = [str(file) for file in files.values() if not _may(file, os.R_OK)]
    if unread:
        return SECRETS.fail(f"{', '.join(unread)} cannot be read", "chown them to the user that serves")
    return SECRETS.ok(", ".join(map(str, files.values())) or "none is named")


def _exposed(status: os.stat_result) -> bool:
    """Whether others may have a secret. Who reads another's file by its group is meant to, as with a pod's Secret."""
    given = 0 if status.st_uid == os.geteuid() else stat.S_IRGRP
    return bool(status.st_mode & _OTHERS & ~given)


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"
