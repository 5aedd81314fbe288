"""One settings model for every process: what a command says, over the environment, over a TOML file, over defaults."""

from __future__ import annotations

import json
import os
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import platformdirs
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from wowevent.errors import BusError
from wowevent.event import check_name

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMATS: Final = ("text", "json")
"""What a line of the log can be: for people, or one JSON object."""

_EMBEDDED: Final = ("sqlite:///", "memory://")
_LOGIN: Final = re.compile(r"(?s)(?<=//).*@|^[^/\s]*@")
_SECRET: Final = re.compile(r"(?i)([?&][^?&=\s]*(?:pass|pwd|token|secret|auth)[^?&=\s]*=)[^&\s]+")

CONFIG: Final = "WOWEVENT_CONFIG"
"""The environment's word for a configuration file elsewhere than in the platform's place."""


def config_path() -> Path:
    """The configuration file, whether it exists or not: WOWEVENT_CONFIG, else the platform's place."""
    given = os.environ.get(CONFIG)
    return Path(given).absolute() if given else platformdirs.user_config_path("wowevent") / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """What a configuration file says, checked; nothing for one that does not exist.

    Raises ValueError, which names the file and the key, for what is not TOML, an unknown key or a wrong value.
    """
    said = parse_config(path)
    check_config(said, path)
    return said


def parse_config(path: Path) -> dict[str, Any]:
    """As `read_config`, with the keys and values unchecked."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or thousands of brackets
        raise ValueError(f"{path}: {error}") from error


def check_config(said: dict[str, Any], path: Path) -> None:
    """Raises ValueError, which names the file and each key, for unknown keys and wrong values."""
    for key, value in said.items():
        if not isinstance(value, str | int | float | list):
            raise ValueError(f"{path}: {key}: text, numbers, true, false and arrays are understood")  # noqa: TRY004 - a wrong file, whatever in it is wrong
    try:
        _shape().model_validate_json(json.dumps(said, default=str))
        check_name(said.get("namespace", "default"))
    except BusError as error:
        raise ValueError(f"{path}: namespace: {error}") from error
    except ValidationError as errors:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {_complaint(each)}" for each in errors.errors())
        raise ValueError(
            f"{path}: {wrong}"
        ) from None  # pydantic's own text shows the values: a url may hold a password


def _complaint(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"is not known; known are {', '.join(Settings.model_fields)}"
    return str(error["msg"]).removeprefix("Value error, ")


@lru_cache(maxsize=1)
def _shape() -> type[BaseModel]:
    """The settings as a file must say them: strictly, and by their own names."""
    fields: dict[str, Any] = {
        name: (Annotated[field.annotation, name, *field.metadata], None)
        for name, field in Settings.model_fields.items()
    }
    return create_model("Config", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _level(given: str) -> str:
    if given.upper() not in LEVELS:
        raise ValueError(f"{given!r:.40} is not a log level: {', '.join(LEVELS)}")
    return given.upper()


def _format(given: str) -> str:
    if given.lower() not in FORMATS:
        raise ValueError(f"{given!r:.40} is not a log format: {', '.join(FORMATS)}")
    return given.lower()


class Settings(BaseSettings):
    """What can be configured; in the environment in capitals, with `WOWEVENT_` before the names that are ours alone."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="WOWEVENT_", extra="ignore", populate_by_name=True
    )

    url: str | None = None
    """The engine; without one, an embedded log in the data directory."""
    redis_url: str | None = Field(None, validation_alias=AliasChoices("WOWEVENT_REDIS_URL", "REDIS_URL"))
    """What `python -m wowevent.service` takes where there is no url; nothing else looks at it."""
    namespace: str = "default"
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(9090, ge=0, le=65_535)
    """WebSocket; `PORT` is HTTP."""
    http_port: int = Field(8080, ge=0, le=65_535, validation_alias=AliasChoices("WOWEVENT_HTTP_PORT", "PORT"))
    log_level: Annotated[str, AfterValidator(_level)] = Field(
        "INFO", validation_alias=AliasChoices("WOWEVENT_LOG_LEVEL", "LOG_LEVEL")
    )
    log_format: Annotated[str, AfterValidator(_format)] = "text"
    """Of a process that serves: `text`, or `json`, one object a line."""
    event_bus_enabled: bool = Field(
        True, validation_alias=AliasChoices("WOWEVENT_EVENT_BUS_ENABLED", "EVENT_BUS_ENABLED")
    )
    max_payload: int = Field(256 * 1024, gt=0)
    """Bytes of the largest payload."""
    max_body: int = Field(1024 * 1024, gt=0)
    """Bytes of the largest HTTP request body."""
    max_hops: int = Field(512, ge=0)
    """Of a conversation: events caused one by another in a row; 0, here and below, is no limit."""
    max_visits: int = Field(128, ge=0)
    """Of a conversation: how often a subscription handles a topic along such a row."""
    max_events: int = Field(10_000, ge=0)
    """Of a conversation: events that it causes, as one process sees them."""
    allow_anonymous: bool = False
    """Others than this machine may reach the service without a token."""
    origins: tuple[str, ...] = ()
    """Web pages that may ask the service, as `https://host:port`; in the environment a JSON array."""
    hosts: tuple[str, ...] = ()
    """Names under which the service may be asked beside loopback's; any, if there are none and others reach it."""
    tokens: str | None = Field(None, min_length=1, repr=False)
    """The file of tokens, or its JSON; with this or `jwt_keys`, whoever asks is asked for a token."""
    jwt_keys: str | None = Field(None, min_length=1, repr=False)
    """The file with the keys that sign JWTs, a JWKS, or its JSON."""
    jwt_audience: str | None = Field(None, min_length=1)
    """Whom a JWT has to be for, its `aud`."""
    jwt_issuer: str | None = Field(None, min_length=1)
    """Who has to have issued a JWT, its `iss`; any without."""
    tls_cert: Path | None = None
    """The certificate of the service, with its chain, PEM; with `tls_key` it speaks https and wss."""
    tls_key: Path | None = None
    token: str | None = Field(None, min_length=1, repr=False)
    """What commands that ask a service show."""
    ca: Path | None = None
    """The authorities that those commands trust, PEM; the system's without."""
    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("wowevent"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the names are the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was given, over the environment, over the file; a file that is asked for by name has to exist."""
        path = config_path()
        if os.environ.get(CONFIG) and not path.exists():
            raise ValueError(f"{path}: there is no such file, and {CONFIG} or --config names it")
        return init_settings, env_settings, InitSettingsSource(settings_cls, read_config(path))

    def model_post_init(self, _context: Any) -> None:
        """A namespace goes into file names and keys: it is a name."""
        check_name(self.namespace)

    def engine_url(self) -> str:
        """The URL that was given, else that of the embedded log."""
        return self.url or f"sqlite:///{self.data_dir / 'events.db'}"

    def shown_url(self) -> str:
        """`engine_url` as it may be shown and logged: without a password."""
        return masked(self.engine_url())


def masked(url: str) -> str:
    """A URL as it may be shown, or a text with one in it: without a password.

    One that is written wrongly may hold a `/`, `?` or `@`: all before the last `@` may be part of it. That of an
    embedded log is shown as it is, since there an `@` is in a name.
    """
    if url.startswith(_EMBEDDED):
        return url
    return _SECRET.sub(r"\1***", _LOGIN.sub("***@", url))


def variables(name: str) -> list[str]:
    """What the environment may call a setting, the one that counts first."""
    alias = Settings.model_fields[name].validation_alias
    return [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else [f"WOWEVENT_{name.upper()}"]
