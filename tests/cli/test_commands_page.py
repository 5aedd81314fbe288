"""docs/commands.md names every command there is, and every exit status with its codes."""

import re
from pathlib import Path

import typer

from wowevent.cli import app, exits

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


def commands(group: typer.Typer) -> set[str]:
    """What can be called, as words."""
    found = {each.name or each.callback.__name__ for each in group.registered_commands if each.callback}
    for part in group.registered_groups:
        assert part.typer_instance is not None
        found |= {f"{part.name} {name}" for name in commands(part.typer_instance)}
    return found


def test_every_command_stands_there() -> None:
    rows = re.findall(r"^\| `wowevent ([a-z \[\]]+)", PAGE, re.MULTILINE)
    named = {row.replace("[list]", "list").partition("[")[0].strip() for row in rows}

    assert named == commands(app)


def test_every_status_stands_there() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE))

    for code, status in exits.STATUS.items():
        assert f"`{code}`" in rows[str(status)]
    assert str(exits.INTERRUPTED) in rows
