"""The pages of the project, and the blocks between fences in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PLACES: Final = ("*.md", "docs/**/*.md", "clients/**/*.md", "examples/**/*.md", "experiments/*.md", "agents/*.md")


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    """Its path from the root."""
    line: int
    """That of the first fence."""
    language: str
    """What stands behind the fence; "" for none."""
    text: str

    def __str__(self) -> str:
        """Where it is, as editors read it."""
        return f"{self.page}:{self.line}"

    def with_(self, changes: Mapping[str, str]) -> Block:
        """The same, with other names of machines and files; each of them must stand there."""
        text = self.text
        for old, new in changes.items():
            assert old in text, f"{self} does not say {old!r}"
            text = text.replace(old, new)
        return self._replace(text=text)


def pages() -> list[str]:
    """All of them."""
    return sorted({str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place)})


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page in their order; with languages, those of them."""
    return [each for each in read(page, (ROOT / page).read_text()) if not languages or each.language in languages]


def read(page: str, text: str) -> list[Block]:
    """The blocks of a text. A fence may be indented, as in a list; what it holds is indented as far."""
    found: list[Block] = []
    begun: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"( *)```+([\w-]*)", line)
        if begun is None and fence:
            begun, lines = (number, fence[2], fence[1]), []
        elif begun is not None and fence:
            found.append(Block(page, begun[0], begun[1], "".join(lines)))
            begun = None
        elif begun is not None:
            lines.append(f"{line.removeprefix(begun[2])}\n")
    assert begun is None, f"{page}:{begun[0]}: this fence is not closed"
    return found


def printed(block: Block) -> str:
    """What the page shows as the output of a block: the next one, which is `text`."""
    every = blocks(block.page)
    behind = every[[each.line for each in every].index(block.line) + 1 :]
    assert behind, f"{block} shows no output"
    assert behind[0].language == "text", f"{block} shows no output"
    return behind[0].text


async def run(block: Block, names: dict[str, Any]) -> None:
    """Run a fragment of Python among these names, to which it adds its own; it may await where it stands."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(block.text, str(block), "exec", flags=flags, dont_inherit=True)
    waiting = FunctionType(code, names)()
    if waiting is not None:
        await waiting
