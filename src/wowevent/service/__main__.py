"""`python -m wowevent.service`: HTTP alone, configured by the environment, as containers run it."""

from __future__ import annotations

import sys

from wowevent.access.address import listen
from wowevent.access.keyring import Keyring
from wowevent.access.tls import server_context
from wowevent.bus import EventBus
from wowevent.errors import BusError
from wowevent.log import logger
from wowevent.process.exits import STATUS, code_of, message_of
from wowevent.process.logs import set_up_logs
from wowevent.process.loop import run
from wowevent.schema import SchemaRegistry
from wowevent.service.server import serve
from wowevent.settings import Settings, masked


def main() -> int:
    """0 after a drain; the status of what kept it from serving or ended it (see `exits`), said in one line."""
    set_up_logs("INFO")  # until it is known how they are wanted
    try:
        settings = Settings()
        set_up_logs(settings.log_level, form=settings.log_format)
        keyring, scheme = Keyring.of(settings), "http" if server_context(settings) is None else "https"
        listening = listen(
            scheme, settings.host, settings.http_port,
            allow_anonymous=settings.allow_anonymous, authenticated=keyring is not None,
        )  # fmt: skip
        url = settings.url or settings.redis_url or settings.engine_url()
        registry = SchemaRegistry()
        bus = EventBus(url, namespace=settings.namespace, registry=registry) if settings.event_bus_enabled else None
        logger.info("service starts", address=listening.url, event_bus="enabled" if bus else "disabled")
        run(serve(bus, listening, settings, keyring=keyring))
    except (BusError, OSError, ValueError) as error:
        code, message = code_of(error), masked(message_of(error))
        logger.error("service failed", code=code, error=message)
        print(f"error[{code}]: {message}", file=sys.stderr)  # noqa: T201 - the command's answer
        return STATUS.get(code, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
