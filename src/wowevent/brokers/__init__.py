"""The engines, opened by URL and imported only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from wowevent.broker import Retention
from wowevent.clock import SystemClock
from wowevent.errors import NotSupported
from wowevent.event import check_name

if TYPE_CHECKING:
    from wowevent.broker import Broker
    from wowevent.brokers.rabbitmq import RabbitMQBroker
    from wowevent.brokers.redis import RedisBroker
    from wowevent.clock import Clock

_AMQP: Final = frozenset(
    {"heartbeat", "name", "auth", "cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"}
)
"""What RabbitMQ's driver goes by in a URL; it says nothing of what else stands there."""
_HEARTBEAT: Final = range(65_535)  # seconds; the driver takes what lies outside for 0, which is none at all


class RedisClient(Protocol):
    """A `redis.asyncio` client: `Redis`, `RedisCluster`, or what a Sentinel's `master_for` gives."""

    async def aclose(self) -> None:
        """Close it; which is its owner's, never ours."""
        ...


def open_broker(
    url: str, *, namespace: str = "default", retention: Retention | None = None, clock: Clock | None = None
) -> Broker:
    """The engine of a URL; nothing is connected or opened on disk yet.

    `memory://` is the caller's own log, `memory://name` is shared within the process. `sqlite:///relative.db`,
    `sqlite:////absolute.db`; of their options `?synchronous=normal` and the limits of `Retention` (`?max_age=604800`)
    are understood. `amqp://user:password@host:port/vhost` has `?heartbeat=` (seconds), `?name=` and the files of TLS.
    Raises ValueError for a URL that says something unknown, NotSupported for an unknown engine.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    retention = _retention(options, retention or Retention())
    clock = clock or SystemClock()
    check_name(namespace)
    if parts.scheme == "memory":
        from wowevent.brokers.memory import MemoryBroker, shared_log

        _refuse_rest(url, options)
        name = parts.netloc + parts.path
        log = shared_log(name, namespace) if name else None
        return MemoryBroker(log, retention=retention, clock=clock)
    if parts.scheme == "sqlite":
        from wowevent.brokers.sqlite import SqliteBroker

        synchronous = options.pop("synchronous", "full").lower()
        if synchronous not in {"full", "normal", "off"} or parts.netloc or len(parts.path) < len("/x"):
            raise ValueError(f"{url!r}: sqlite:///relative.db or sqlite:////absolute.db, synchronous=full or normal")
        _refuse_rest(url, options)
        path = _namespaced(unquote(parts.path[1:]), namespace)
        return SqliteBroker(path, synchronous=synchronous, retention=retention, clock=clock)
    if parts.scheme in {"redis", "rediss", "unix", "redis+sentinel", "redis+cluster"}:
        redis = _redis()
        strict = {"true": True, "false": False}.get(options.pop("strict", "false").lower())
        if strict is None:
            raise ValueError("strict: true or false")
        ours = {*Retention.__struct_fields__, "strict"}
        rest = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in ours])
        server = parts._replace(query=rest).geturl()
        return redis(server, namespace=namespace, strict=strict, retention=retention, clock=clock)
    if parts.scheme in {"amqp", "amqps"}:
        rabbitmq = _rabbitmq()
        _check_amqp(parts, options)
        server = parts._replace(query=urlencode(options)).geturl()
        return rabbitmq(server, namespace=namespace, retention=retention, clock=clock)
    raise NotSupported(f"{parts.scheme or url!r}: known here are memory://, sqlite:///path, redis:// and amqp://")


def open_client(
    client: RedisClient, *, namespace: str = "default", retention: Retention | None = None, clock: Clock | None = None
) -> Broker:
    """The engine behind a `redis.asyncio` client, which stays the caller's. NotSupported for anything else."""
    if not hasattr(client, "connection_pool") and not hasattr(client, "nodes_manager"):
        raise NotSupported(f"a {type(client).__name__} is neither a URL nor a broker nor a redis.asyncio client")
    return _redis()(client, namespace=namespace, retention=retention, clock=clock)


def _redis() -> type[RedisBroker]:
    try:
        from wowevent.brokers.redis import RedisBroker
    except ImportError as error:
        raise NotSupported("redis:// needs its driver: pip install 'wowevent[redis]'") from error
    return RedisBroker


def _rabbitmq() -> type[RabbitMQBroker]:
    try:
        from wowevent.brokers.rabbitmq import RabbitMQBroker
    except ImportError as error:
        raise NotSupported("amqp:// needs its driver: pip install 'wowevent[rabbitmq]'") from error
    return RabbitMQBroker


def _check_amqp(parts: SplitResult, options: dict[str, str]) -> None:
    """ValueError for what the driver would not understand, and say nothing. It never shows what may be a password."""
    if options.keys() - _AMQP:
        raise ValueError(f"amqp: unknown option {', '.join(sorted(options.keys() - _AMQP))}")
    heartbeat = options.get("heartbeat", "0")
    if not heartbeat.isdecimal() or int(heartbeat) not in _HEARTBEAT:
        raise ValueError(f"amqp: heartbeat={heartbeat!r:.20}: seconds, {_HEARTBEAT[0]} to {_HEARTBEAT[-1]}")
    try:
        known = parts.hostname is not None and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.fragment or "@" in parts.path:
        raise ValueError("amqp://user:password@host:port/vhost (in a password, / ? # @ are written %2F %3F %23 %40)")


def _namespaced(path: str, namespace: str) -> str:
    """Each namespace of an embedded log is a file of its own: events.db, events.staging.db."""
    if namespace == "default":
        return path
    stem, dot, suffix = path.rpartition(".")
    safe = namespace.replace("/", "~").replace(":", "~")
    return f"{stem}.{safe}.{suffix}" if dot and "/" not in suffix else f"{path}.{safe}"


def _retention(options: dict[str, str], given: Retention) -> Retention:
    """The limits that the URL names, over those that were given; its names leave `options`."""
    limits = {name: getattr(given, name) for name in Retention.__struct_fields__}
    for name in limits.keys() & options.keys():
        number = float(options.pop(name))
        limits[name] = number if name in {"max_age", "unserved_after"} else int(number)
    return Retention(**limits)


def _refuse_rest(url: str, options: dict[str, str]) -> None:
    """A misspelt option must not be ignored: it may be the one that durability hangs on."""
    if options:
        raise ValueError(f"{url!r}: unknown option {', '.join(sorted(options))}")
