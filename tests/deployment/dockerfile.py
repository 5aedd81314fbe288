"""A reading of our Dockerfile: its stages and their instructions, and what .dockerignore lets into a build."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

from msgspec import Struct


class Step(Struct, frozen=True):
    """One instruction: `RUN` and what it runs."""

    word: str
    rest: str

    def listed(self) -> list[str]:
        """The arguments of one in JSON notation."""
        return [str(each) for each in json.loads(self.rest)]


class Stage(Struct, frozen=True):
    """One FROM, and what follows it."""

    image: str
    steps: list[Step]

    def only(self, word: str) -> Step:
        """Its only instruction of that kind."""
        (found,) = (step for step in self.steps if step.word == word)
        return found

    def environment(self, before: dict[str, str]) -> dict[str, str]:
        """What its ENV says, over what there was."""
        after = dict(before)
        for step in self.steps:
            if step.word == "ENV":
                for pair in shlex.split(step.rest):
                    name, _, value = pair.partition("=")
                    after[name] = value.replace(f"${name}", before.get(name, ""))
        return after


def stages(file: Path) -> list[Stage]:
    """The stages, with the arguments of before the first FROM put in."""
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    steps = [Step(*line.split(maxsplit=1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]
    given = dict(step.rest.split("=", 1) for step in steps if step.word == "ARG")
    found: list[Stage] = []
    for step in steps:
        if step.word == "FROM":
            image = step.rest.split()[0]
            found.append(Stage(re.sub(r"\$\{(\w+)\}", lambda name: given[name[1]], image), []))
        elif step.word != "ARG":
            found[-1].steps.append(step)
    return found


def sent(root: Path) -> list[Path]:
    """The files that a build is sent, relative to the root: what git knows, and .dockerignore does not leave out."""
    said = (root / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in said if line and not line.startswith("#")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    known = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    return [Path(each) for each in known if _is_sent(each, rules) and (root / each).is_file()]


def _is_sent(file: str, rules: list[str]) -> bool:
    """The last rule that matches the file, or a folder that it is in, counts."""
    parts = Path(file).parts
    places = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    left_out = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        names = [Path(place).name for place in places] if "**/" in rule else places
        if any(fnmatch(each, pattern) for each in names):
            left_out = not rule.startswith("!")
    return not left_out


def copy(step: Step, context: Path, known: list[Path], to: Path) -> None:
    """What COPY does: files into a folder, a folder's content into one of that name."""
    *sources, target = step.rest.split()
    for source in sources:
        if (context / source).is_dir():
            for file in known:
                if file.is_relative_to(source):
                    place = to / target / file.relative_to(source)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(context / file, place)
        else:
            assert Path(source) in known, f"{source} is not sent to the build"
            (to / target).mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / source, to / target / Path(source).name)
