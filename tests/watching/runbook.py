"""The pages of docs/runbooks: their blocks of commands, under their headings, and the commands in them as words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
HERE = "On this machine"

_ENDS = frozenset("|&;")


class Block(NamedTuple):
    """What stands between fences that say `sh`."""

    page: str
    headings: tuple[str, ...]
    """Those that it stands under, the title first."""
    text: str


def pages() -> list[str]:
    """Their names, without the ending."""
    return sorted(page.stem for page in RUNBOOKS.glob("*.md"))


def blocks(page: str, *headings: str) -> list[Block]:
    """The blocks of a page that stand under all of these headings, in their order."""
    found = _read(page)
    assert found, f"{page} has no block of commands"
    return [block for block in found if set(headings) <= set(block.headings)]


def _read(page: str) -> list[Block]:
    found: list[Block] = []
    above: list[str] = []
    fence, lines = "", list[str]()
    for line in (RUNBOOKS / f"{page}.md").read_text().splitlines():
        if line.startswith("```"):
            if fence == "sh":
                found.append(Block(page, tuple(above), "".join(lines)))
            fence, lines = ("", []) if fence else (line[3:] or "text", [])
        elif fence:
            lines.append(f"{line}\n")
        elif heading := re.match(r"(#+) (.*)", line):
            above = [*above[: len(heading[1]) - 1], heading[2]]
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Every single command of a block, as words, without comments and where its output goes."""
    for line in text.replace("\\\n", " ").splitlines():
        outer, inner = _taken_apart(line)
        yield from _words(outer)
        for each in inner:
            yield from commands(each)


def _taken_apart(line: str) -> tuple[str, list[str]]:
    """A line, and the commands whose output is part of it: `$(…)`."""
    start = line.find("$(")
    if start < 0:
        return line, []
    depth, end = 1, start + 2
    while depth:
        depth += {"(": 1, ")": -1}.get(line[end], 0)
        end += 1
    outer, inner = _taken_apart(f"{line[:start]}X{line[end:]}")
    return outer, [line[start + 2 : end - 1], *inner]


def _words(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    redirected = False
    for word in lexer:
        if set(word) <= _ENDS:
            yield from [command] if command else []
            command = []
        elif word[0] in "<>":
            redirected = True
        elif redirected:
            redirected = False
        elif command or word not in {"until", "do", "done", "!"}:
            command.append(word)
    if command:
        yield command
