"""`python -m tests.soak [ENGINES] [--minutes N | --hours N] [--seed N]`: load and faults, and what is left of them.

The exit code is 1 if anything was lost, invented or altered, if a series is not flat, or if the run broke off.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import machine
from tests.soak.report import Report, chart, to_json, to_markdown
from tests.soak.soak import NAMES, Asked, soak

_TITLE = "Load, faults and time: nothing is lost, and nothing grows."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and say whether it was good."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    told = _parser().parse_args(given)
    if unknown := set(told.engines) - set(NAMES):
        print(f"no engine is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)  # noqa: T201 - to the terminal
        return 2
    engines = told.engines or list(NAMES)
    seconds = 60 * (60 * told.hours if told.hours else told.minutes) / len(engines)
    asked = Asked(
        seconds=seconds,
        sample_every=min(Asked(seconds=seconds).sample_every, seconds / 20),
        rate=told.rate,
        seed=told.seed,
        fault_every=told.fault_every,
    )
    report = asyncio.run(run(engines, asked, told.directory, shlex.join(["python", "-m", "tests.soak", *given])))
    text = to_markdown(report)
    print(text, end="")  # noqa: T201 - to the terminal
    for file, content in ((told.json, to_json(report)), (told.markdown, text.encode()), (told.chart, None)):
        if file is not None:
            file.write_bytes(chart(report).encode() if content is None else content)
    return 1 if report.failures else 0


async def run(engines: Sequence[str], asked: Asked, directory: Path | None, command: str) -> Report:
    """One engine after the other: together they would have to share the machine, and hide what each one takes."""
    outcomes = []
    with _logs(directory) as folder:
        described = await asyncio.to_thread(machine.describe, folder)
        for name in engines:
            print(f"{name}: {asked.seconds / 60:g} minutes", file=sys.stderr)  # noqa: T201 - to the terminal
            outcomes.append(await soak(name, folder, asked))
            if not outcomes[-1].failures:
                await asyncio.to_thread(shutil.rmtree, folder / name)
    return Report(command=command, asked=asked, machine=described, outcomes=outcomes)


@contextmanager
def _logs(directory: Path | None) -> Iterator[Path]:
    """Where they are written. What is left then, of engines that failed, stays if somebody said where it is to be."""
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=directory))
    try:
        yield folder
    finally:
        if directory is not None and any(folder.iterdir()):
            print(f"{folder}: the logs of what failed", file=sys.stderr)  # noqa: T201 - to the terminal
        else:
            shutil.rmtree(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=_TITLE)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(NAMES)} (default: all)")
    long = parser.add_mutually_exclusive_group()
    long.add_argument("--minutes", type=float, default=30, metavar="N", help="of load, for all engines together (30)")
    long.add_argument("--hours", type=float, metavar="N", help="the same in hours; an hour writes some GB of journal")
    parser.add_argument("--rate", type=float, default=200, metavar="N", help="events a second (200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the order of the faults (1)")
    parser.add_argument("--fault-every", type=float, default=30, metavar="SECONDS", help="from one to the next (30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, with every sample")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write the chart there, as SVG")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="where logs lie, and stay of an engine that failed"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
