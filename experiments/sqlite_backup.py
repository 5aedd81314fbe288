"""How does one copy a log that another process writes to all the time, so that the copy ends and is of one moment?

Candidates: the backup API in steps, with and without a read transaction around them; the same in one step; VACUUM INTO.
Measured: seconds, and how often a copy began anew because somebody had committed.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw

ROWS = 200_000
LIMIT = 20.0
SCHEMA = "pragma journal_mode=wal; create table if not exists log(position integer primary key, body blob)"
WRITER = """
import apsw, sys
db = apsw.Connection(sys.argv[1])
db.set_busy_timeout(5000)
db.execute("pragma synchronous=full")
while True:
    with db:
        db.executemany("insert into log(body) values (zeroblob(?))", [(900,)] * 50)
"""


def connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    connection.execute("pragma wal_autocheckpoint=0").fetchall()
    return connection


def by_api(source: Path, target: Path, pages: int, *, at_once: bool) -> str:
    """In steps of so many pages; `at_once` within one read transaction."""
    one, two = connect(source), apsw.Connection(str(target))
    two.execute("pragma journal_mode=off; pragma synchronous=off").fetchall()
    if at_once:
        one.execute("begin; select max(position) from log").fetchall()
    began, last, anew = time.monotonic(), 0, 0
    with two.backup("main", one, "main") as copying:
        while not copying.done and time.monotonic() < began + LIMIT:
            copying.step(pages)
            done = copying.page_count - copying.remaining
            anew += done < last
            last = done
        ended = copying.done
    took = time.monotonic() - began
    if ended:
        assert two.execute("pragma integrity_check").get == "ok"
    one.close()
    two.close()
    return f"{'done after' if ended else 'not done after'} {took:.1f} s, began anew {anew} times"


def by_vacuum(source: Path, target: Path) -> str:
    """As it says."""
    connection = connect(source)
    began = time.monotonic()
    connection.execute("vacuum into ?", (str(target),))
    took = time.monotonic() - began
    connection.close()
    return f"done after {took:.1f} s"


def main() -> None:
    """Each candidate, alone and beside a process that writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "log.db"
        connection = connect(source)
        connection.execute(SCHEMA).fetchall()
        with connection:
            connection.executemany("insert into log(body) values (zeroblob(?))", [(900,)] * ROWS)
        connection.close()
        candidates = {
            "backup API, 2,048 pages a step, one transaction": lambda to: by_api(source, to, 2_048, at_once=True),
            "backup API, 2,048 pages a step": lambda to: by_api(source, to, 2_048, at_once=False),
            "backup API, 100 pages a step": lambda to: by_api(source, to, 100, at_once=False),
            "backup API, one step": lambda to: by_api(source, to, -1, at_once=False),
            "VACUUM INTO": lambda to: by_vacuum(source, to),
        }
        for beside in (False, True):
            for what, candidate in candidates.items():
                writer = subprocess.Popen([sys.executable, "-c", WRITER, str(source)]) if beside else None
                time.sleep(0.5)
                target = folder / "copy.db"
                print(f"{'beside a writer' if beside else 'alone':16} {what:48} {candidate(target)}", flush=True)
                target.unlink()
                if writer is not None:
                    assert writer.poll() is None
                    writer.kill()
                    writer.wait()


if __name__ == "__main__":
    main()
