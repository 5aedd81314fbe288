"""`python -m wowevent.service`: HTTP alone, configured by the environment, as containers run it."""

from __future__ import annotations

import sys

import pydantic

from wowevent.access import listen
from wowevent.bus import EventBus
from wowevent.errors import BusError
from wowevent.log import logger
from wowevent.service.logs import set_up_logs
from wowevent.service.loop import run
from wowevent.service.server import serve
from wowevent.settings import Settings


def main() -> int:
    """0 after a drain, 1 for what kept it from serving, said in one line."""
    try:
        settings = Settings()
        set_up_logs(settings.log_level)
        listening = listen("http", settings.host, settings.http_port, allow_anonymous=settings.allow_anonymous)
        url = settings.url or settings.redis_url or settings.engine_url()
        bus = EventBus(url, namespace=settings.namespace) if settings.event_bus_enabled else None
        logger.info("service starts", address=listening.url, event_bus="enabled" if bus else "disabled")
        run(serve(bus, listening, settings))
    except (BusError, OSError, ValueError, pydantic.ValidationError) as error:
        code = error.code if isinstance(error, BusError) else "config"
        print(f"error[{code}]: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
