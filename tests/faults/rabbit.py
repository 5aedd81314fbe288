"""One RabbitMQ that may be killed, and what its operator can tell it; a virtual host for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiormq

from tests.faults.proxy import Proxy
from tests.servers import Server, rabbitmq_says, rabbitmq_server

YOUNG = 1.5
"""Seconds that a queue must be old for its server to know it after a SIGKILL (see `rabbitmq_server`)."""


class Rabbit:
    """A server, and the names of what lives on it."""

    def __init__(self, folder: Path) -> None:
        self.server: Server = rabbitmq_server(folder)
        self.url: str = ""
        """Of the virtual host that there is now."""
        self.host: str = ""
        """Its name."""
        self._numbers = itertools.count()

    def start(self) -> None:
        """Start the server, unless it runs; a test may have left it in any state."""
        if self.server.process is None or not self.server.answers():
            self.server.kill()
            self.server.start()

    def restart(self) -> None:
        """SIGKILL, and a start on the same port and directory."""
        self.server.kill()
        self.server.start()

    def empty(self) -> str:
        """A new virtual host; its URL."""
        self.start()
        self.make(f"h{next(self._numbers)}")
        return self.url

    def make(self, host: str) -> None:
        """A virtual host of that name, with nothing in it."""
        self.host, self.url = host, f"amqp://127.0.0.1:{self.server.port}/{host}"
        self.tell(f'rabbit_vhost:add(<<"{host}">>, <<"guest">>).')
        rights = '<<".*">>, <<".*">>, <<".*">>'
        self.tell(f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{host}">>, {rights}, <<"guest">>).')

    def delete(self) -> None:
        """Delete the virtual host, with all that is in it; who is connected to it is cut off."""
        self.tell(f'rabbit_vhost:delete(<<"{self.host}">>, <<"guest">>).')

    def short_of_memory(self, short: bool) -> None:
        """Whether the server takes it that it has too little memory, and stops who publishes."""
        self.tell(f"vm_memory_monitor:set_vm_memory_high_watermark({'{absolute, 1}' if short else '0.8'}).")

    def names(self, kind: str) -> list[str]:
        """The queues, or the exchanges, of the virtual host."""
        listed = f'[binary_to_list(element(4, element(2, X))) || X <- rabbit_{kind}:list(<<"{self.host}">>)]'
        answer = self.tell(f'string:join({listed}, " ").')
        return answer.removeprefix("{ok, ").removesuffix("}").strip('"').split()

    def tell(self, expression: str) -> str:
        """What an expression gives that the server evaluates."""
        return rabbitmq_says(self.server, expression)


@asynccontextmanager
async def line_to(rabbit: Rabbit) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy, and the URL of the virtual host by way of it."""
    async with Proxy(rabbit.server.port, plain=True) as proxy:
        yield proxy, f"amqp://127.0.0.1:{proxy.port}/{rabbit.host}"


async def gone(rabbit: Rabbit, *queues: str, exchanges: tuple[str, ...] = ()) -> None:
    """Delete them, as an operator would."""
    connection = await aiormq.connect(rabbit.url)
    channel = await connection.channel()
    for queue in queues:
        await channel.queue_delete(queue)
    for exchange in exchanges:
        await channel.exchange_delete(exchange)
    await connection.close()
