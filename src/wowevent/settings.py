"""One settings model: the environment for every process, overridden by what a command or a constructor says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import platformdirs
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from wowevent.event import check_name


class Settings(BaseSettings):
    """What an environment can say. Names in capitals, with `WOWEVENT_` before those that are ours alone."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="WOWEVENT_", extra="ignore", populate_by_name=True
    )

    url: str | None = None
    """The engine; without one, an embedded log in the data directory."""
    redis_url: str | None = Field(None, validation_alias=AliasChoices("WOWEVENT_REDIS_URL", "REDIS_URL"))
    """What `python -m wowevent.service` takes where there is no url; nothing else looks at it."""
    namespace: str = "default"
    host: str = "127.0.0.1"
    port: int = Field(9090, ge=0, le=65_535)
    """WebSocket; `PORT` is HTTP."""
    http_port: int = Field(8080, ge=0, le=65_535, validation_alias=AliasChoices("WOWEVENT_HTTP_PORT", "PORT"))
    log_level: str = Field("INFO", validation_alias=AliasChoices("WOWEVENT_LOG_LEVEL", "LOG_LEVEL"))
    event_bus_enabled: bool = Field(
        True, validation_alias=AliasChoices("WOWEVENT_EVENT_BUS_ENABLED", "EVENT_BUS_ENABLED")
    )
    max_payload: int = Field(256 * 1024, gt=0)
    """Bytes of the largest payload."""
    max_body: int = Field(1024 * 1024, gt=0)
    """Bytes of the largest HTTP request body."""
    allow_anonymous: bool = False
    """Others than this machine may reach the service without a token."""
    origins: tuple[str, ...] = ()
    """Web pages that may ask the service, as `https://host:port`; in the environment a JSON array."""
    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("wowevent"))

    def model_post_init(self, _context: Any) -> None:
        """A namespace goes into file names and keys: it is a name."""
        check_name(self.namespace)

    def engine_url(self) -> str:
        """The URL that was given, else that of the embedded log."""
        return self.url or f"sqlite:///{self.data_dir / 'events.db'}"

    def shown_url(self) -> str:
        """`engine_url` as it may be shown and logged: without a password."""
        return re.sub(r"//[^/@]*@", "//***@", self.engine_url())
