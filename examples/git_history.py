"""A repository's history as events, and three agents that work on them; at the end the numbers must add up.

    python examples/git_history.py [REPOSITORY] [--directory DIR]

Every commit becomes `commit.authored` or `commit.merged`, every file in it `file.changed`, every new name
`author.appeared`; what belongs to one commit has its hash as correlation id. The agents, each with a subscription that
the log remembers:

    statistics   counts, in batches
    changelog    writes a line for each commit
    reviewer     is flaky on purpose: some commits succeed at the second attempt, some never, until it is repaired and
                 its dead letters are sent again
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wowevent import Event, EventBus, Position, RetryPolicy, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RECORD, FIELD = "\x1e", "\x1f"
FORMAT = "--format=" + RECORD + "%H%x1f%P%x1f%an%x1f%aI%x1f%s"
TOGETHER: Final = 200  # events that are published in one call
AHEAD: Final = 5_000  # events after which the publisher waits for the agents: memory stays bounded
CHANGES: Final = "CHANGES.txt"
AGENTS: Final = ("statistics", "changelog", "reviewer")


# --- the repository ---------------------------------------------------------------------------------------------


def git(repository: Path, *arguments: str) -> str:
    """What git says; the program ends with git's own words if it refuses."""
    done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git: {done.stderr.strip()}")
    return done.stdout.strip()


async def commits(repository: Path) -> AsyncIterator[list[str]]:
    """The lines of `git log`, oldest commit first, as they come: a header as its five fields, a file as its three."""
    log = await asyncio.create_subprocess_exec(
        *("git", "-C", repository, "-c", "core.quotePath=off", "log", "--reverse", "--numstat", "--no-renames", FORMAT),
        stdout=subprocess.PIPE,
        limit=2**20,
    )
    assert log.stdout is not None  # noqa: S101 - it was asked for
    async for raw in log.stdout:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if line.startswith(RECORD):
            yield line.removeprefix(RECORD).split(FIELD, 4)
        elif line:
            yield line.split("\t", 2)
    if await log.wait():
        sys.exit("git log failed")


async def events_of(repository: Path) -> AsyncIterator[Event]:
    """Each commit's event, then those of what belongs to it."""
    authors: set[str] = set()
    number, commit = 0, Event(topic="commit.authored")
    async for line in commits(repository):
        if len(line) == 3:
            yield Event(
                topic="file.changed",
                payload={"path": line[2], "added": whole(line[0]), "deleted": whole(line[1])},
                source_agent="git",
                correlation_id=commit.correlation_id,
                parent_event_id=commit.event_id,
            )
            continue
        sha, parents, author, when, subject = line
        number += 1
        commit = Event(
            topic="commit.merged" if " " in parents else "commit.authored",
            payload={"number": number, "sha": sha, "author": author, "when": when, "subject": subject[:500]},
            source_agent="git",
            correlation_id=sha,
        )
        yield commit
        if author not in authors:
            authors.add(author)
            yield Event(
                topic="author.appeared",
                payload={"author": author},
                source_agent="git",
                correlation_id=sha,
                parent_event_id=commit.event_id,
            )


def whole(text: str) -> int:
    """A count of lines; git says '-' for a file that has none."""
    return int(text) if text.isdecimal() else 0


# --- the agents -------------------------------------------------------------------------------------------------


class Statistics:
    """Counts what happened. Gets lists of events: one call for a hundred."""

    def __init__(self) -> None:
        self.topics: Counter[str] = Counter()
        self.added = self.deleted = 0

    async def handle(self, events: list[Event]) -> None:
        for event in events:
            self.topics[event.topic] += 1
            if event.topic == "file.changed":
                self.added += event.payload["added"]
                self.deleted += event.payload["deleted"]

    @property
    def handled(self) -> int:
        return self.topics.total()


class Changelog:
    """Writes a line for each commit."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.handled = 0

    async def handle(self, event: Event) -> None:
        commit = event.payload
        self.file.write(f"{commit['when'][:10]} {commit['sha'][:10]} {commit['subject']} ({commit['author']})\n")
        self.handled += 1


class Reviewer:
    """Raises for some commits: for one in ten at the first attempt, for one in fifty at each, until it is repaired."""

    def __init__(self) -> None:
        self.repaired = False
        self.at_once = self.retried = self.redelivered = 0

    async def handle(self, event: Event) -> None:
        number, delivery = event.payload["number"], current()
        if delivery is None:
            raise RuntimeError("a handler has a delivery")
        if is_hopeless(number) and not self.repaired:
            raise RuntimeError(f"commit {number} cannot be reviewed")
        if is_shaky(number) and delivery.attempt == 1:
            raise ConnectionError(f"commit {number}: the model did not answer")
        if delivery.redelivered:
            self.redelivered += 1
        elif delivery.attempt > 1:
            self.retried += 1
        else:
            self.at_once += 1

    @property
    def handled(self) -> int:
        return self.at_once + self.retried + self.redelivered


def is_hopeless(number: int) -> bool:
    return number % 50 == 1


def is_shaky(number: int) -> bool:
    return number % 10 == 2


# --- the run ----------------------------------------------------------------------------------------------------


class Published:
    """What went onto the bus."""

    def __init__(self) -> None:
        self.topics: Counter[str] = Counter()
        self.hopeless = self.shaky = 0

    def add(self, event: Event) -> None:
        self.topics[event.topic] += 1
        if event.topic.startswith("commit."):
            self.hopeless += is_hopeless(event.payload["number"])
            self.shaky += is_shaky(event.payload["number"])

    @property
    def commits(self) -> int:
        return self.topics["commit.authored"] + self.topics["commit.merged"]


async def demo(repository: Path, directory: Path, url: str, console: Console) -> None:
    total = int(git(repository, "rev-list", "--count", "HEAD"))
    published, statistics, reviewer = Published(), Statistics(), Reviewer()
    changelog_file = directory / CHANGES
    with changelog_file.open("w", encoding="utf-8") as file:
        changelog = Changelog(file)
        async with EventBus(url) as bus:
            for agent in AGENTS:  # what an earlier run left in this directory is not part of this one
                await bus.remove(agent)
            begin = Position.parse((await bus.health())["details"]["position"])
            retry = RetryPolicy(max_retries=2, initial=0.05)
            await bus.subscribe("*", statistics.handle, "statistics", batch=100)
            await bus.subscribe("commit.*", changelog.handle, "changelog")
            await bus.subscribe("commit.*", reviewer.handle, "reviewer", retry=retry)

            with bar(console) as progress:
                task = progress.add_task("commits", total=total)
                batch: list[Event] = []
                async for event in events_of(repository):
                    batch.append(event)
                    if len(batch) == TOGETHER:
                        await publish(bus, batch, published)
                        progress.update(task, completed=published.commits)
                        if published.topics.total() % AHEAD == 0:
                            await bus.join()
                await publish(bus, batch, published)
                progress.update(task, completed=published.commits)
            await bus.join()

            dead = await settled(bus, "reviewer")
            letters = await bus.dead_letters.list(subscription="reviewer", limit=1)
            reviewed_before, reviewer.repaired = reviewer.handled, True
            sent_again = await bus.dead_letters.redeliver(subscription="reviewer")
            left = await settled(bus, "reviewer")

            check("statistics: published = handled", published.topics, statistics.topics)
            check("changelog: commits = handled", published.commits, changelog.handled)
            check("reviewer: commits = at once + retried + dead", published.commits, reviewed_before + dead)
            check("reviewer: retried", published.shaky, reviewer.retried)
            check("reviewer: dead letters", published.hopeless, dead)
            check("reviewer: each has three attempts", 3, len(letters[0].attempts))
            check("reviewer: dead letters sent again, and handled", (dead, dead), (sent_again, reviewer.redelivered))
            check("reviewer: commits = handled after the repair", published.commits, reviewer.handled)
            check("reviewer: no dead letter is left", 0, left)
            check("history: stored = published", published.topics, await history(bus, begin))
    summary(console, published, statistics, reviewer, dead)


async def publish(bus: EventBus, batch: list[Event], published: Published) -> None:
    await bus.publish_many(batch)
    for event in batch:
        published.add(event)
    batch.clear()


async def settled(bus: EventBus, agent: str) -> int:
    """Wait until an agent has nothing left to handle; returns how many dead letters it has."""
    async with asyncio.timeout(60):
        while True:
            info = await bus.info(agent)
            if info is None:
                return 0
            if not (info.ready or info.leased or info.delayed):
                return info.dead or 0
            await asyncio.sleep(0.02)


async def history(bus: EventBus, begin: Position) -> Counter[str]:
    """The topics of the log behind `begin`; everything there must belong to the commit before it."""
    topics: Counter[str] = Counter()
    commit: Event | None = None
    async for stored in bus.history(after=begin):
        event = stored.event
        topics[event.topic] += 1
        if event.topic.startswith("commit."):
            commit = event
            check("correlation of a commit", event.payload["sha"], event.correlation_id)
        elif commit is not None:
            ours = (commit.correlation_id, commit.event_id)
            check("correlation within a commit", ours, (event.correlation_id, event.parent_event_id))
    if commit is not None:
        alike = [stored async for stored in bus.history(correlation_id=commit.correlation_id, after=begin)]
        same = sum(1 for stored in alike if stored.event.correlation_id == commit.correlation_id)
        check("history of one correlation", len(alike), same)
    return topics


def check(what: str, wanted: Any, found: Any) -> None:
    """The demo fails if its numbers do not add up, also where assertions are switched off."""
    if wanted != found:
        raise AssertionError(f"{what}: {wanted} and {found} are not the same")


def bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def summary(console: Console, published: Published, statistics: Statistics, reviewer: Reviewer, dead: int) -> None:
    total = published.topics.total()
    lines = (
        f"published  {total:,} events of {published.commits:,} commits: "
        + ", ".join(f"{count:,} {topic}" for topic, count in sorted(published.topics.items())),
        f"statistics {statistics.handled:,} handled: {statistics.added:,} lines added, {statistics.deleted:,} deleted",
        f"changelog  {published.commits:,} handled",
        f"reviewer   {reviewer.at_once:,} handled at once + {reviewer.retried:,} after a retry + {dead:,} dead letters",
        f"repaired   {reviewer.redelivered:,} dead letters sent again and handled; 0 are left",
        f"history    {total:,} events, each with its commit's correlation id",
        "all numbers add up",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="A repository's history as events.")
    parser.add_argument("repository", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--directory", type=Path, help="where the log and the changelog are kept (default: nowhere)")
    given = parser.parse_args()
    logging.getLogger("wowevent").setLevel(logging.CRITICAL)  # the reviewer's failures are meant
    repository = Path(git(given.repository, "rev-parse", "--show-toplevel"))
    git(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{directory.absolute() / 'git-history.db'}"
        asyncio.run(demo(repository, directory, url, Console()))
        if given.directory:
            print(f"log        {url}\nchangelog  {directory.absolute() / CHANGES}")


if __name__ == "__main__":
    main()
