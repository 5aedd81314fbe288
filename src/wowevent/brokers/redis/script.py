"""The Lua scripts: each is one step that the server carries out whole. Keys and entries are drawn in `prelude.lua`."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

_FOLDER: Final = files(__package__) / "scripts"
_ELSEWHERE: Final = frozenset({"open"})  # runs before it is known which log this is
_NEEDS_MEMORY: Final = frozenset({"append", "hold"})  # a full server refuses these; the others are what frees it


class Script:
    """One script, known to the server by the hash of its text."""

    def __init__(self, name: str, *, still: bool = False) -> None:
        """`still`: for who only looks, at whichever log is there; the server refuses what would change something."""
        before = ["still"] if still else [] if name in _ELSEWHERE else ["same_log"]
        parts = ["prelude", *before, name]
        flags = " flags=no-writes" if still else "" if name in _NEEDS_MEMORY else " flags=allow-oom"
        text = "\n".join((_FOLDER / f"{part}.lua").read_text("utf-8") for part in parts)
        self.name: str = name
        self.text: bytes = f"#!lua{flags}\n{text}".encode()
        self.sha: str = hashlib.sha1(self.text).hexdigest()  # noqa: S324 - the server's way to name scripts


_NAMES: Final = (
    "append beat cancel declare detach facts fetch fill fold hold info "
    "open present purge remove reply resolve retain settle"
)
SCRIPTS: Final = {name: Script(name) for name in _NAMES.split()}
LOOKS: Final = {name: Script(name, still=True) for name in ("fold", "info")}
