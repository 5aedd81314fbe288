"""Peers that would bring dependencies of their own: each lies in a virtual environment that only its parts run in.

`python -m benchmarks --install-peers` makes them, below `build/`, out of `requirements/peers/`, where each is locked
with its hashes, and what we have ourselves is in our version; without them their rows have no ratio. Nothing of the
project depends on one.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from benchmarks.places import Absent

_ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = _ROOT / "build" / "peers"
LOCKS: Final = _ROOT / "requirements" / "peers"
PEERS: Final = ("faststream", "pika")


def python(peer: str) -> str:
    """The interpreter of a peer. Absent if it is not installed."""
    found = FOLDER / peer / "bin" / "python"
    if not found.exists():
        raise Absent(f"{peer} (python -m benchmarks --install-peers)")
    return str(found)


def install() -> None:
    """Make all that are not there as they are locked; one whose lock has changed is made anew."""
    for peer in PEERS:
        lock = LOCKS / f"{peer}.txt"
        done, digest = FOLDER / peer / "lock", hashlib.sha256(lock.read_bytes()).hexdigest()
        if done.exists() and done.read_text(encoding="ascii") == digest:
            continue
        shutil.rmtree(FOLDER / peer, ignore_errors=True)
        venv.create(FOLDER / peer)
        pip = [sys.executable, "-m", "pip", "--python", python(peer), "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "--require-hashes", "-r", str(lock)], check=True)
        done.write_text(digest, encoding="ascii")
        print(f"{peer} {versions()[peer]}", file=sys.stderr)


def versions() -> dict[str, str]:
    """Those that are installed."""
    found: dict[str, str] = {}
    for peer in PEERS:
        sites = [str(site) for site in (FOLDER / peer).glob("lib/python*/site-packages")]
        found |= {each.name: each.version for each in distributions(name=peer, path=sites)}
    return found
