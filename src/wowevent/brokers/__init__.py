"""The engines, opened by URL and imported only when asked for."""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from wowevent.broker import Retention
from wowevent.clock import SystemClock
from wowevent.errors import NotSupported
from wowevent.event import check_name
from wowevent.settings import masked

if TYPE_CHECKING:
    from wowevent.broker import Broker
    from wowevent.brokers.nats import NatsBroker
    from wowevent.brokers.rabbitmq import RabbitMQBroker
    from wowevent.brokers.redis import RedisBroker
    from wowevent.clock import Clock

_AMQP: Final = frozenset(
    {"heartbeat", "name", "auth", "cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"}
)
"""What RabbitMQ's driver goes by in a URL; it says nothing of what else stands there."""
_NATS: Final = frozenset({"ca", "cert", "key", "creds", "nkey", "name", "replicas"})
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
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
    `nats://user:password@host:port,host:port`, `nats://token@host`, `tls://` have `?creds=`, `?nkey=` (files), `?ca=`,
    `?cert=`, `?key=` (files of TLS), `?replicas=` (1, 3, 5), `?name=`.
    Raises ValueError for a URL that says something unknown, NotSupported for an unknown engine.
    """
    parts, options = _read(url)
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
        if synchronous not in {"full", "normal", "off"}:
            raise ValueError(f"{url!r}: synchronous=full or normal")
        _refuse_rest(url, options)
        return SqliteBroker(embedded_path(url, namespace), synchronous=synchronous, retention=retention, clock=clock)
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
    if parts.scheme in {"nats", "tls"}:
        nats = _nats()
        servers, given = _nats_options(parts, options)
        return nats(servers, given, namespace=namespace, retention=retention, clock=clock)
    known = "memory://, sqlite:///path, redis://, amqp:// and nats://"
    raise NotSupported(f"{parts.scheme or masked(url)!r}: known here are {known}")


def _read(url: str) -> tuple[SplitResult, dict[str, str]]:
    """A URL and its options. What the library says of a wrong one may repeat a password, so it is not shown."""
    parts = SplitResult("", "", "", "", "")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        options = {"": ""}
    if not all(map(str.isidentifier, options)):  # else half of a password is an option that is unknown
        raise ValueError(
            "not a URL: engine://user:password@host:port?option=value (in a password, / ? # @ [ ] are written "
            "%2F %3F %23 %40 %5B %5D)"
        )
    return parts, options


def embedded_path(url: str, namespace: str = "default") -> str:
    """The file of an embedded log, as its URL and namespace name it; ValueError for a URL that names none."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < len("/x"):
        raise ValueError(f"{url!r}: sqlite:///relative.db or sqlite:////absolute.db")
    check_name(namespace)
    return _namespaced(unquote(parts.path[1:]), namespace)


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


def _nats() -> type[NatsBroker]:
    try:
        from wowevent.brokers.nats import NatsBroker
    except ImportError as error:
        raise NotSupported("nats:// needs its driver: pip install 'wowevent[nats]'") from error
    return NatsBroker


def _nats_options(parts: SplitResult, options: dict[str, str]) -> tuple[list[str], dict[str, Any]]:
    """The servers of a URL, which may name several, and what the engine is to know. ValueError never shows a secret."""
    if options.keys() - _NATS:
        raise ValueError(f"nats: unknown option {', '.join(sorted(options.keys() - _NATS))}")
    user, at, hosts = parts.netloc.rpartition("@")
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")) or parts.path.strip("/") or parts.fragment:
        raise ValueError(
            "nats://user:password@host:port,host:port (in a password, / ? # @ are written %2F %3F %23 %40)"
        )
    given: dict[str, Any] = {name: options[name] for name in ("creds", "nkey", "name") if name in options}
    if at:
        name, colon, password = user.partition(":")
        given |= {"user": unquote(name), "password": unquote(password)} if colon else {"token": unquote(name)}
    if parts.scheme == "tls" or options.keys() & {"ca", "cert", "key"}:
        given["tls"] = {name: options.get(name, "") for name in ("ca", "cert", "key")}
    if "replicas" in options:
        if options["replicas"] not in {"1", "3", "5"}:
            raise ValueError("nats: replicas=1, 3 or 5")
        given["replicas"] = int(options["replicas"])
    return [f"nats://{host}" for host in hosts.split(",")], given


def _check_amqp(parts: SplitResult, options: dict[str, str]) -> None:
    """ValueError for what the driver would not understand, and say nothing. It never shows what may be a password."""
    if options.keys() - _AMQP:
        raise ValueError(f"amqp: unknown option {', '.join(sorted(options.keys() - _AMQP))}")
    heartbeat = options.get("heartbeat", "0")
    if not heartbeat.isdecimal() or int(heartbeat) not in _HEARTBEAT:
        raise ValueError(f"amqp: heartbeat={heartbeat!r:.20}: seconds, {_HEARTBEAT[0]} to {_HEARTBEAT[-1]}")
    hosts = parts.netloc.rpartition("@")[2]
    known = all(_HOST.fullmatch(host) and not host.endswith(":0") for host in hosts.split(","))
    if not known or parts.fragment or "@" in parts.path:
        raise ValueError(
            "amqp://user:password@host:port,host:port/vhost (in a password, / ? # @ are written %2F %3F %23 %40)"
        )


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
        number = float(text := options.pop(name))
        if not 0 < number < inf:
            raise ValueError(f"{name}={text!r:.20}: a number above 0")
        limits[name] = number if name in {"max_age", "unserved_after"} else int(number)
    return Retention(**limits)


def _refuse_rest(url: str, options: dict[str, str]) -> None:
    """A misspelt option must not be ignored: it may be the one that durability hangs on."""
    if options:
        raise ValueError(f"{url!r}: unknown option {', '.join(sorted(options))}")
