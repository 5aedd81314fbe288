"""`python -m benchmarks [names] [--quick|--full] [--repeat N] [--json FILE] [--markdown FILE]`: measure, and say so.

The exit code is 1 if a run lost anything or did not come through; a figure that is missed is a finding, not a failure.
130 is of a run that was cut: with `--resume` the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench, Scale
from benchmarks.kept import Kept
from benchmarks.report import to_json, to_markdown
from benchmarks.run import measure
from benchmarks.workloads import DESIGN, TITLES, WORKLOADS

_PLACES = ("--json", "--markdown", "--directory", "--resume")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    if asked.list:
        width = max(map(len, TITLES))
        print("\n".join(f"{name:<{width}}  {title}" for name, title in TITLES.items()))
        return 0
    if asked.install_peers:
        peers.install()
        return 0
    if unknown := [name for name in asked.names if name not in WORKLOADS]:
        print(f"no workload is called {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    scale: Scale = "tiny" if asked.tiny else "quick" if asked.quick else "full" if asked.full else "normal"
    command = shlex.join(["python", "-m", "benchmarks", *_shared(sys.argv[1:] if arguments is None else arguments)])
    names = asked.names or list(DESIGN if asked.design else WORKLOADS)
    kept = Kept(asked.resume) if asked.resume else None
    for file in filter(None, (asked.json, asked.markdown)):
        file.parent.mkdir(parents=True, exist_ok=True)  # now, not after hours
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=asked.directory) as directory:
        try:
            report = asyncio.run(measure(names, Bench(Path(directory), scale, asked.repeat), command, kept))
        except KeyboardInterrupt:
            print("cut", file=sys.stderr)
            return 130
    text = to_markdown(report)
    print(text, end="")
    if asked.json:
        asked.json.write_bytes(to_json(report))
    if asked.markdown:
        asked.markdown.write_text(text, encoding="utf-8")
    return 1 if report.failures else 0


def _shared(arguments: Sequence[str]) -> list[str]:
    """The arguments without where files went: what another machine needs to repeat the run."""
    kept: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument in _PLACES:
            next(given, None)
        elif not argument.startswith(tuple(f"{place}=" for place in _PLACES)):
            kept.append(argument)
    return kept


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure WowEvent beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads to run (default: all)")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="small runs, once each")
    scale.add_argument("--full", action="store_true", help="large runs, five times each: hours")
    scale.add_argument("--tiny", action="store_true", help="only to see that everything works")
    parser.add_argument("--design", action="store_true", help="only the workloads whose figures the design sets")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds (default: 1 quick, 3, or 5 full)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where logs lie (default: the temporary one)")
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="keep there what each workload found, and take what is there already"
    )
    parser.add_argument("--install-peers", action="store_true", help="install those of other projects, and stop")
    parser.add_argument("--list", action="store_true", help="name the workloads, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
