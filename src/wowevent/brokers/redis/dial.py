"""Reaching the server: by URL, through Sentinel, in a cluster, or as a caller's own client does.

    redis://[user:password@]host:port/database      rediss:// the same over TLS, unix:///path/of/socket
    redis+sentinel://[user:password@]host:port,host:port/service/database
    redis+cluster://[user:password@]host:port,host:port

Options behind `?` are those of redis-py's connection (`ssl_ca_certs=…`, `client_name=…`; TLS behind a Sentinel or in a
cluster: `ssl=true`). Those that say how answers are waited for and decoded are ours: `_OURS` stands in for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.connection import Connection as PlainConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, RedisError

from wowevent.brokers.redis.faults import translate
from wowevent.errors import BrokerUnavailable, NotSupported

_CONNECT_SECONDS: Final = 3.0
_ASK_SECONDS: Final = 1.0  # for one Sentinel: there may be others
_HOPS: Final = 5  # from one server of a cluster to the next that is said to have our slot

Dial = Callable[[], Awaitable[AbstractConnection]]
"""Makes a connection of our own, connected; raises errors of ours."""

# A command is sent once: the driver's own retries would store a publish twice. Bytes stay bytes.
_OURS: Final[dict[str, Any]] = {
    "decode_responses": False,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "health_check_interval": 0,
    "socket_timeout": None,
    "socket_connect_timeout": _CONNECT_SECONDS,
    "socket_keepalive": True,
    "protocol": 2,
}

# What belongs to a pool or a client, and not to its connections.
_THEIRS: Final = (
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "parser_class",
    "connection_pool",
)


def once() -> Retry:
    """No retry at all."""
    return Retry(NoBackoff(), 0)


def dial_url(url: str, key: str) -> Dial:
    """How to reach the server of a URL; in a cluster, the one that has the slot of `key`. ValueError for a bad URL."""
    parts = urlsplit(url)
    if parts.fragment:  # the driver would look for a host that is the first half of a password
        raise ValueError("a redis URL has no fragment (in a password, # is written %23)")
    try:  # made, and not connected: the driver takes any option until a connection is made with it
        if parts.scheme == "redis+sentinel":
            return _sentinel(url)
        if parts.scheme == "redis+cluster":
            return _cluster(url, key)
        database = parts.path.strip("/")
        if parts.scheme == "unix" and parts.netloc.rpartition("@")[2]:
            raise ValueError("a unix URL has no host: unix:///path/of/socket (in a password, / is written %2F)")
        if parts.scheme != "unix" and _port(parts, 6379) and database and not database.isdecimal():
            raise ValueError("the database of a redis URL is a number")
        pool: ConnectionPool = ConnectionPool.from_url(url)
        _make(pool)
    except (TypeError, RedisError) as error:
        raise ValueError(f"an option of the redis URL is unknown or wrong: {error}") from error
    return _by_pool(pool)


def dial_client(client: Any, key: str) -> Dial:
    """How the caller's client reaches its server, on connections of our own: theirs stay theirs, and open."""
    if isinstance(client, RedisCluster):
        return _of_cluster(client, key)
    if not isinstance(client, Redis):
        raise NotSupported(f"a {type(client).__module__}.{type(client).__name__}: a redis.asyncio client is needed")
    pool = client.connection_pool
    return _of_sentinel(pool) if isinstance(pool, SentinelConnectionPool) else _by_pool(pool)


def _by_pool(pool: ConnectionPool) -> Dial:
    async def dial() -> AbstractConnection:
        return await _connected(_make(pool))

    return dial


def _make(pool: ConnectionPool) -> AbstractConnection:
    """A connection like those of the pool, not connected yet."""
    settings = {**pool.connection_kwargs, **_OURS, "retry": once()}
    for name in _THEIRS:
        settings.pop(name, None)
    if "path" in settings:
        settings.pop("socket_keepalive")
    return pool.connection_class(**settings)


async def _connected(connection: AbstractConnection, seconds: float = _CONNECT_SECONDS) -> AbstractConnection:
    try:
        async with asyncio.timeout(seconds):
            await connection.connect()  # type: ignore[no-untyped-call]  # the driver left it so
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise BrokerUnavailable(f"redis does not answer within {seconds:.0f} s") from None
    except Exception as error:
        await connection.disconnect(nowait=True)
        raise translate(error) from error
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _addresses(url: str, port: int) -> tuple[list[tuple[str, int]], dict[str, Any], str]:
    """Hosts with their ports, what a connection is made with, and the path."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    if "@" in parts.path:
        raise ValueError("a / in a password is written %2F")
    found = []
    for each in hosts.split(","):
        one = urlsplit(f"//{each}")
        if not one.hostname:
            raise ValueError("a host is missing in the list of hosts")
        found.append((one.hostname, _port(one, port)))
    like = f"redis://{credentials}@localhost" if credentials else "redis://localhost"
    query = f"?{parts.query}" if parts.query else ""
    settings: dict[str, Any] = {**parse_url(like + query)}
    for name in ("host", "port"):
        settings.pop(name, None)
    if (tls := settings.get("ssl", "false")) not in {"true", "false"}:
        raise ValueError(f"ssl={tls!r:.20}: true or false")
    settings["ssl"] = tls == "true"
    return found, settings, parts.path.strip("/")


def _port(parts: SplitResult, otherwise: int) -> int:
    """The port. What stands in its place may be half of a password, so it is not shown."""
    try:
        return parts.port or otherwise
    except ValueError:
        raise ValueError("the port is not a number (in a password, / ? # @ are written %2F %3F %23 %40)") from None


def _sentinel(url: str) -> Dial:
    hosts, settings, path = _addresses(url, 26379)
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("redis+sentinel://host:port/service: the service is missing")
    if database:
        settings["db"] = int(database)

    kind = SSLConnection if settings.pop("ssl", False) else PlainConnection

    def make(host: str, port: int) -> AbstractConnection:
        return kind(**{**settings, **_OURS, "retry": once(), "host": host, "port": port})

    def sentinels() -> list[AbstractConnection]:
        return [PlainConnection(host=host, port=port, retry=once(), **_OURS) for host, port in hosts]

    make(*hosts[0])
    return partial(_by_sentinels, sentinels, service, make)


def _of_sentinel(pool: SentinelConnectionPool) -> Dial:
    asked = pool.sentinel_manager
    settings = {name: value for name, value in pool.connection_kwargs.items() if name not in _THEIRS}
    kind = SSLConnection if issubclass(pool.connection_class, SSLConnection) else PlainConnection

    def make(host: str, port: int) -> AbstractConnection:
        host = asked._force_master_ip or host  # noqa: SLF001 - there is no other way to learn of it
        return kind(**{**settings, **_OURS, "retry": once(), "host": host, "port": port})

    def sentinels() -> list[AbstractConnection]:
        return [_make(each.connection_pool) for each in asked.sentinels]

    return partial(_by_sentinels, sentinels, pool.service_name, make)


async def _by_sentinels(
    sentinels: Callable[[], list[AbstractConnection]], service: str, make: Callable[[str, int], AbstractConnection]
) -> AbstractConnection:
    """A connection to the master of a service, by the first Sentinel that knows it."""
    trouble: Exception = BrokerUnavailable(f"no Sentinel knows a master {service!r}")
    for sentinel in sentinels():
        try:
            master = await _ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        except BrokerUnavailable as error:
            trouble = error
            continue
        if master is not None:
            return await _connected(make(master[0].decode(), int(master[1])))
    raise trouble


async def _ask(connection: AbstractConnection, *command: str) -> Any:
    """The answer to one question, on a connection that is made for it."""
    await _connected(connection, _ASK_SECONDS)
    try:
        await connection.send_command(*command, check_health=False)
        return await connection.read_response(disable_decoding=True, timeout=_ASK_SECONDS)
    except Exception as error:
        raise translate(error) from error
    finally:
        await connection.disconnect(nowait=True)


def _cluster(url: str, key: str) -> Dial:
    hosts, settings, path = _addresses(url, 6379)
    if path not in {"", "0"} or settings.pop("db", 0):
        raise ValueError("a cluster has one database, 0")
    kind = SSLConnection if settings.pop("ssl", False) else PlainConnection

    def make(host: str, port: int) -> AbstractConnection:
        return kind(**{**settings, **_OURS, "retry": once(), "host": host, "port": port})

    make(*hosts[0])
    return partial(_follow, lambda: hosts, make, key)


def _of_cluster(client: RedisCluster, key: str) -> Dial:
    nodes = client.nodes_manager

    def hosts() -> list[tuple[str, int]]:
        known = {**nodes.startup_nodes, **nodes.nodes_cache}
        return [(node.host, int(node.port)) for node in known.values()]

    def make(host: str, port: int) -> AbstractConnection:
        like = next(iter(nodes.startup_nodes.values()))
        host, port = nodes.remap_host_port(host, port)
        settings = {**like.connection_kwargs, **_OURS, "retry": once(), "host": host, "port": port}
        kind = SSLConnection if issubclass(like.connection_class, SSLConnection) else PlainConnection
        return kind(**{name: value for name, value in settings.items() if name not in _THEIRS})

    return partial(_follow, hosts, make, key)


async def _follow(
    hosts: Callable[[], list[tuple[str, int]]], make: Callable[[str, int], AbstractConnection], key: str
) -> AbstractConnection:
    """A connection to the server of a cluster that has the key's slot now; any of them says which one that is."""
    trouble: Exception = BrokerUnavailable("no server of the cluster is known")
    try:
        async with asyncio.timeout(2 * _CONNECT_SECONDS):
            for host, port in hosts():
                try:
                    return await _at_home(await _connected(make(host, port)), host, make, key)
                except BrokerUnavailable as error:
                    trouble = error
    except TimeoutError:
        trouble = BrokerUnavailable(f"the cluster does not answer within {2 * _CONNECT_SECONDS:.0f} s")
    raise trouble


async def _at_home(
    connection: AbstractConnection, host: str, make: Callable[[str, int], AbstractConnection], key: str
) -> AbstractConnection:
    """The connection, or one to where it says that the key's slot is."""
    for _ in range(_HOPS):
        try:
            await connection.send_command("EXISTS", key, check_health=False)
            await connection.read_response(disable_decoding=True, timeout=_CONNECT_SECONDS)
            return connection
        except MovedError as moved:
            await connection.disconnect(nowait=True)
            connection = await _connected(make(moved.host or host, int(moved.port)))
        except AskError:  # the slot is on its way elsewhere, and its home is still here
            return connection
        except Exception as error:  # the driver itself closes it when it is cancelled
            await connection.disconnect(nowait=True)
            raise translate(error) from error
    await connection.disconnect(nowait=True)
    raise BrokerUnavailable("the servers of the cluster do not agree on who has our slot")
