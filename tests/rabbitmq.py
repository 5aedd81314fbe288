"""One RabbitMQ for all tests of a run, and in it a virtual host for each log that a test wants."""

from __future__ import annotations

import atexit
import http.client
import itertools
import json
import os
import shutil
import tempfile
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tests.servers import RABBITMQ_WITHIN, free_port, rabbitmq_server

PLACE = "WOWEVENT_TEST_RABBITMQ"
"""The variable that names the run's server: amqp://127.0.0.1:{port}?management={port}. One that is set is used."""
TROUBLE = f"{PLACE}_TROUBLE"
"""The variable that says why there is none."""
KEPT = 15
"""So many virtual hosts of a process are there at a time: what nobody erased goes when there are more."""

_GUEST = {"Authorization": f"Basic {b64encode(b'guest:guest').decode()}"}


class SharedRabbit:
    """The server, started once by the process that begins the run; its workers inherit where it is."""

    def __init__(self) -> None:
        self._hosts: deque[tuple[Path, str]] = deque()
        self._numbers = itertools.count()

    def start(self) -> None:
        """Start it, unless it runs; it ends with this process. If it cannot, whoever asks for it is told."""
        if PLACE in os.environ:
            return
        try:
            self._start()
        except AssertionError as error:
            os.environ[TROUBLE] = str(error)

    def _start(self) -> None:
        folder, management = Path(tempfile.mkdtemp(prefix="wowevent-rabbitmq-")), free_port()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        settings = (
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {management}",
            "management_agent.disable_metrics_collector = true",  # nobody looks at its graphs
            "log.console.level = error",  # each virtual host and each line that a test cuts is worth a word to it
        )
        server = rabbitmq_server(folder, *settings, plugins=["rabbitmq_management"])
        atexit.register(server.kill)
        server.start()
        os.environ[PLACE] = f"amqp://127.0.0.1:{server.port}?management={management}"

    def url(self) -> str:
        """Where it is, without a virtual host. AssertionError if it was not started."""
        if PLACE not in os.environ:
            raise AssertionError(os.environ.get(TROUBLE, "--broker does not name rabbitmq: none was started"))
        return os.environ[PLACE].partition("?")[0]

    def empty(self, folder: Path) -> str:
        """The URL of a virtual host that has nothing in it, until `erase(folder)`."""
        while len(self._hosts) >= KEPT:
            self._delete(self._hosts.popleft()[1])
        url, name = self.url(), f"wowevent-{os.getpid()}-{next(self._numbers)}"
        self._ask("PUT", f"/api/vhosts/{name}")  # who makes it may do everything in it
        self._hosts.append((folder, name))
        return f"{url}/{name}"

    def erase(self, folder: Path) -> None:
        """Delete the virtual hosts of that folder, with all their queues; who is connected to them is cut off."""
        for host in [host for host in self._hosts if host[0] == folder]:
            self._hosts.remove(host)
            self._delete(host[1])

    @contextmanager
    def admitting(self, host: str, user: str, password: str) -> Iterator[None]:
        """There is a virtual host of that name, and a user who may do everything in it, and nothing elsewhere."""
        name = quote(host, safe="")
        self._ask("PUT", f"/api/vhosts/{name}")
        self._ask("PUT", f"/api/users/{user}", {"password": password, "tags": ""})
        self._ask("PUT", f"/api/permissions/{name}/{user}", {"configure": ".*", "write": ".*", "read": ".*"})
        try:
            yield
        finally:
            self._ask("DELETE", f"/api/users/{user}")
            self._delete(name)

    def _delete(self, name: str) -> None:
        self._ask("DELETE", f"/api/vhosts/{name}")

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        """One call of the management's HTTP API."""
        port = int(parse_qs(urlsplit(os.environ[PLACE]).query)["management"][0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RABBITMQ_WITHIN)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), _GUEST)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status < http.client.BAD_REQUEST, f"{method} {path}: {answer.status} {text!r}"


shared_rabbit = SharedRabbit()
