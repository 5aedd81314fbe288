"""Where the blocking bus finds its engine, and how it reaches it: a URL, WOWEVENT_URL, or RabbitMQ's own words."""

from __future__ import annotations

from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

from msgspec import Struct
from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from wowevent.settings import Settings, masked

_ENVIRONMENT: Final = SettingsConfigDict(
    env_prefix="RABBITMQ_", extra="ignore", populate_by_name=True, hide_input_in_errors=True
)


class Place(BaseSettings):
    """A RabbitMQ server: what was given, over RABBITMQ_* in the environment, over what every server starts with."""

    model_config: ClassVar[SettingsConfigDict] = _ENVIRONMENT

    host: str = Field("localhost", min_length=1, pattern=r"^[^/?#@]*$")  # it becomes a part of a URL
    port: int = Field(5672, ge=1, le=65_535)
    username: str = Field("guest", validation_alias=AliasChoices("RABBITMQ_USER", "username"))
    password: SecretStr = SecretStr("guest")
    vhost: str = "/"


class Tuning(BaseSettings):
    """How an engine is reached and consumed, whichever it is; from the same places."""

    model_config: ClassVar[SettingsConfigDict] = _ENVIRONMENT

    prefetch_count: int = Field(10, ge=1, le=65_535)
    """Events that a queue's consumer holds, the one that is being handled among them."""
    connection_timeout: float = Field(10.0, gt=0, le=86_400)
    """Seconds that a call waits for an engine that is not reached yet."""
    heartbeat: int = Field(600, ge=0, le=65_534)
    """Seconds between RabbitMQ's heartbeats; the other engines have their own."""


def exchange_of(namespace: str) -> str:
    """What a namespace's log is called in RabbitMQ's words."""
    return "agent_events" if namespace == "default" else f"agent_events.{namespace}"


class Address(Struct, frozen=True):
    """One engine."""

    url: str
    """With its password: never shown and never logged."""

    def __repr__(self) -> str:
        """Without a password."""
        return f"Address({self.shown!r})"

    @property
    def shown(self) -> str:
        """The URL without a password."""
        return masked(self.url)

    @property
    def engine(self) -> str:
        """The URL's scheme."""
        return urlsplit(self.url).scheme

    @property
    def place(self) -> dict[str, Any]:
        """`host` and `port` of a server; of an engine without one, its file or its name as the host."""
        parts = urlsplit(self.url)
        if parts.scheme in {"memory", "sqlite", "unix"}:
            name = "" if parts.scheme == "unix" else parts.netloc  # there stands who logs in
            return {"host": unquote(name + parts.path).removeprefix("/") or parts.scheme, "port": None}
        servers = parts.netloc.rpartition("@")[2]
        host, _, port = servers.rpartition(":")
        if "," in servers or not port.isdecimal():  # several servers, an address of version 6, or no port
            host, port = servers, ""
        return {"host": unquote(host), "port": int(port) if port else None}


def address(url: str | None, place: dict[str, Any], heartbeat: int) -> Address:
    """The engine that is meant: a URL, what was given of a RabbitMQ server, WOWEVENT_URL, RABBITMQ_*; in this order.

    `place` is what was given of `Place`, None for what was not. ValueError for both, and for what cannot be.
    """
    given = {name: value for name, value in place.items() if value is not None}
    if url is not None:
        if given:
            raise ValueError(f"a URL says where the engine is: {', '.join(given)} cannot be given beside it")
        if not isinstance(url, str):
            raise TypeError(f"a URL is needed, not a {type(url).__name__}: the blocking bus opens its engine itself")
        return Address(url)
    if not given and (known := Settings().url) is not None:
        return Address(known)
    server = Place(**given)
    user, password = quote(server.username, safe=""), quote(server.password.get_secret_value(), safe="")
    vhost = quote(server.vhost, safe="")
    options = urlencode({"heartbeat": heartbeat})
    return Address(f"amqp://{user}:{password}@{server.host}:{server.port}/{vhost}?{options}")
