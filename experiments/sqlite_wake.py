"""How does one process learn that another wrote to the file, without polling busily?

Candidates: a datagram to the loopback port that each waiting process wrote into the file; polling `PRAGMA
data_version`. Measured: latency from the writer's COMMIT to the reader's fetch, what an idle reader costs,
and what is left after a kill.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw

EVENTS = 200
SCHEMA = """
pragma journal_mode=wal;
create table if not exists log(position integer primary key autoincrement, at real);
create table if not exists waiting(port integer primary key, until real);
"""


def connect(path: str) -> apsw.Connection:
    connection = apsw.Connection(path)
    connection.set_busy_timeout(5000)
    connection.execute(SCHEMA).fetchall()  # stops at the first row otherwise, and a pragma returns one
    connection.execute("pragma synchronous=full")
    return connection


def write(connection: apsw.Connection, bell: socket.socket) -> float:
    """Append; take the notes of who waits in the same transaction; ring them after the COMMIT."""
    with connection:
        connection.execute("insert into log(at) values (?)", (time.time(),))
        ports = [
            row[0] for row in connection.execute("delete from waiting where until > ? returning port", (time.time(),))
        ]
    committed = time.time()
    for port in ports:
        bell.sendto(b"", ("127.0.0.1", port))
    return committed


class Bell(asyncio.DatagramProtocol):
    """Sets an event at each datagram; nothing in it is read."""

    def __init__(self) -> None:
        """Silent at first."""
        self.rung = asyncio.Event()

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Somebody wrote."""
        self.rung.set()


async def reader(path: str, how: str) -> None:
    """Tell when each event was fetched, then idle for a second and tell what that costs."""
    connection = connect(path)
    transport, bell = await asyncio.get_running_loop().create_datagram_endpoint(Bell, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    fetched: list[float] = []
    sys.stdout.write("ready\n")
    while len(fetched) < EVENTS:
        version = connection.pragma("data_version")
        bell.rung.clear()
        rows = connection.execute("select position from log where position > ?", (len(fetched),)).fetchall()
        if how == "bell" and not rows:
            with connection:  # the note is written first and the log read again after it: no wake-up falls between
                connection.execute("insert or replace into waiting values (?, ?)", (port, time.time() + 5))
            rows = connection.execute("select position from log where position > ?", (len(fetched),)).fetchall()
        fetched += [time.time()] * len(rows)
        if how == "bell" and not rows:
            await asyncio.wait_for(bell.rung.wait(), 5)
        while how != "bell" and not rows and connection.pragma("data_version") == version:
            await asyncio.sleep(float(how))
    transport.close()
    sys.stdout.write(json.dumps([await idle(connection, how), *fetched]))


async def idle(connection: apsw.Connection, how: str) -> float:
    """Per cent of a core that waiting costs."""
    used, until = time.process_time(), time.monotonic() + 1
    while time.monotonic() < until:
        await asyncio.sleep(1.0 if how == "bell" else float(how))
        connection.pragma("data_version")
    return (time.process_time() - used) * 100


def measure(path: str, how: str) -> tuple[float, float]:
    """(median latency in us, per cent of a core while idle)."""
    run = subprocess.Popen([sys.executable, "-u", __file__, path, how], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "ready\n"
    connection, bell = connect(path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    committed = []
    for _ in range(EVENTS):
        committed.append(write(connection, bell))
        time.sleep(0.003)
    cost, *fetched = json.loads(run.communicate(timeout=30)[0])
    bell.close()
    connection.close()
    latencies = sorted(there - here for here, there in zip(committed, fetched, strict=True))
    return latencies[EVENTS // 2] * 1e6, cost


def dead_process_is_harmless(path: str) -> None:
    """A killed reader's note rings nobody, once, and is gone."""
    connection, bell = connect(path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    run = subprocess.Popen([sys.executable, "-u", __file__, path, "bell"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    run.stdout.readline()
    while not connection.execute("select count(*) from waiting").get:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    write(connection, bell)
    write(connection, bell)
    assert connection.execute("select count(*) from waiting").get == 0
    bell.close()
    connection.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wow-sqlite-") as name:
        for how in ("bell", "0.001", "0.025"):
            latency, idle = measure(str(Path(name) / f"{how}.db"), how)
            label = "a datagram" if how == "bell" else f"data_version every {float(how) * 1000:.0f} ms"
            print(f"{label:26}: commit to fetch {latency:6.0f} us, idle {idle:4.1f} % of a core")
        dead_process_is_harmless(str(Path(name) / "dead.db"))
        print(f"sqlite {apsw.sqlite_lib_version()}: a killed reader leaves one note, which the next write removes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(reader(sys.argv[1], sys.argv[2]))
    else:
        main()
