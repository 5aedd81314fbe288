"""Peers that would bring dependencies of their own: each lies in a virtual environment that only its parts run in.

`python -m benchmarks --install-peers` makes them, below `build/`; without them their rows have no ratio. Nothing of the
project depends on one.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from benchmarks.places import Absent

FOLDER: Final = Path(__file__).parents[1] / "build" / "peers"
PEERS: Final = {
    "faststream": ("faststream[nats,rabbit,redis]", "hiredis", "msgspec", "uvloop"),
    "pika": ("pika", "msgspec", "uvloop"),
}
"""What is installed for each; the last two are what runs a part."""


def python(peer: str) -> str:
    """The interpreter of a peer. Absent if it is not installed."""
    found = FOLDER / peer / "bin" / "python"
    if not found.exists():
        raise Absent(f"{peer} (python -m benchmarks --install-peers)")
    return str(found)


def install() -> None:
    """Make all of them, or bring them up to date."""
    for peer, packages in PEERS.items():
        venv.create(FOLDER / peer, with_pip=True)
        subprocess.run([python(peer), "-m", "pip", "install", "--quiet", "--upgrade", *packages], check=True)
        print(f"{peer} {versions()[peer]}", file=sys.stderr)


def versions() -> dict[str, str]:
    """Those that are installed."""
    found: dict[str, str] = {}
    for peer in PEERS:
        sites = [str(site) for site in (FOLDER / peer).glob("lib/python*/site-packages")]
        found |= {each.name: each.version for each in distributions(name=peer, path=sites)}
    return found
