"""The part of a lock that extras of the project want, with its hashes: `python scripts/extras.py LOCK EXTRA...`.

A lock of pip-compile says behind each package who wants it. pip refuses (--require-hashes) where something is missing.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path


def taken(lock: str, roots: Iterable[str]) -> list[str]:
    """The entries of the roots, and of all that they want; LookupError, which names them, for roots that it lacks."""
    entries = {_name(entry): entry for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]}
    wanted = set(roots)
    if lacking := wanted - entries.keys():
        raise LookupError(f"the lock has no {', '.join(sorted(lacking))}")
    while new := {name for name, entry in entries.items() if name not in wanted and wanted & _wanted_by(entry)}:
        wanted |= new
    return [entry for name, entry in entries.items() if name in wanted]


def _name(requirement: str) -> str:
    """`redis` of `redis[hiredis]>=5.2`."""
    found = re.match(r"[\w.-]+", requirement)
    if found is None:
        raise ValueError(f"{requirement!r:.40} names no package")
    return found[0].lower().replace("_", "-").replace(".", "-")


def _wanted_by(entry: str) -> set[str]:
    """The names behind `# via`."""
    return set(re.findall(r"^ +# (?:via |  )([\w.-]+)$", entry, flags=re.MULTILINE))


def main(lock: str, *extras: str) -> None:
    """Print the entries; KeyError for what is no extra."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    roots = {_name(requirement) for extra in extras for requirement in project[extra]}
    print("".join(taken(Path(lock).read_text("utf-8"), roots)), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
