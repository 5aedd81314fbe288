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
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.connection import Connection as PlainConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from wowevent.brokers.redis.faults import translate
from wowevent.errors import BrokerUnavailable, NotSupported

_CONNECT_SECONDS: Final = 3.0
SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")

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


def once() -> Retry:
    """No retry at all."""
    return Retry(NoBackoff(), 0)


def dial_url(url: str, key: str) -> Dial:
    """How to reach the server of a URL; in a cluster, the one that has the slot of `key`. ValueError for a bad URL."""
    parts = urlsplit(url)
    try:  # made, and not connected: the driver takes any option until a connection is made with it
        if parts.scheme == "redis+sentinel":
            return _sentinel(url)
        if parts.scheme == "redis+cluster":
            return _cluster(url, key)
        database = parts.path.strip("/")
        if parts.scheme != "unix" and _port(parts, 6379) and database and not database.isdecimal():
            raise ValueError("the database of a redis URL is a number")
        pool: ConnectionPool = ConnectionPool.from_url(url)
        _make(pool)
    except (TypeError, RedisError, RedisClusterException) as error:
        raise ValueError(f"an option of the redis URL is unknown or wrong: {error}") from error
    return _by_pool(pool)


def dial_client(client: Any, key: str) -> Dial:
    """How the caller's client reaches its server, on connections of our own: theirs stay theirs, and open."""
    if isinstance(client, RedisCluster):
        return lambda: _node_of(client, key)
    if not isinstance(client, Redis):
        raise NotSupported(f"a {type(client).__module__}.{type(client).__name__}: a redis.asyncio client is needed")
    return _by_pool(client.connection_pool)


def _by_pool(pool: ConnectionPool) -> Dial:
    async def dial() -> AbstractConnection:
        return await _connected(_make(pool))

    return dial


def _make(pool: ConnectionPool) -> AbstractConnection:
    """A connection like those of the pool, not connected yet."""
    settings = {**pool.connection_kwargs, **_OURS, "retry": once()}
    for name in ("maint_notifications_config", "maint_notifications_pool_handler", "parser_class"):
        settings.pop(name, None)
    if "path" in settings:
        settings.pop("socket_keepalive")
    if isinstance(pool, SentinelConnectionPool):
        settings["connection_pool"] = pool
    return pool.connection_class(**settings)


async def _connected(connection: AbstractConnection) -> AbstractConnection:
    try:
        await _in_time(connection.connect())  # type: ignore[no-untyped-call]
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise BrokerUnavailable(f"redis does not answer within {_CONNECT_SECONDS:.0f} s") from None
    except Exception as error:
        await connection.disconnect(nowait=True)
        raise translate(error) from error
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _in_time(work: Awaitable[Any]) -> None:
    """Wait for the driver. Before Python 3.12 its `wait_for` may swallow our cancellation: that is made good."""
    task = asyncio.current_task()
    asked = task.cancelling() if task else 0
    async with asyncio.timeout(_CONNECT_SECONDS):
        await work
    if task and task.cancelling() > asked:
        raise asyncio.CancelledError


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

    def ask() -> tuple[Sentinel, SentinelConnectionPool]:
        how = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "retry": once()}
        sentinel = Sentinel(hosts, sentinel_kwargs=how)  # type: ignore[no-untyped-call]
        return sentinel, SentinelConnectionPool(service, sentinel, **settings)  # type: ignore[no-untyped-call]

    async def dial() -> AbstractConnection:
        sentinel, pool = ask()
        try:
            return await _connected(_make(pool))
        finally:
            await sentinel.aclose()

    _make(ask()[1])
    return dial


def _cluster(url: str, key: str) -> Dial:
    hosts, settings, path = _addresses(url, 6379)
    if path not in {"", "0"}:
        raise ValueError("a cluster has one database, 0")
    settings = {"socket_connect_timeout": _CONNECT_SECONDS, **settings}

    def ask() -> RedisCluster:
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in hosts], **settings)

    async def dial() -> AbstractConnection:
        cluster = ask()
        try:
            return await _node_of(cluster, key)
        finally:
            await cluster.aclose()

    ask()
    return dial


async def _node_of(cluster: RedisCluster, key: str) -> AbstractConnection:
    """A connection to the server that has the key's slot now."""
    try:
        await _in_time(cluster.initialize())
        await _in_time(cluster.nodes_manager.initialize())
    except TimeoutError:
        raise BrokerUnavailable(f"the cluster does not answer within {_CONNECT_SECONDS:.0f} s") from None
    except RedisClusterException as error:  # "cannot be connected", of whatever trouble there was
        raise translate(error.__cause__ or error) from error
    except Exception as error:
        raise translate(error) from error
    node = cluster.get_node_from_key(key)
    if node is None:
        raise BrokerUnavailable("no server of the cluster has our slot")
    known = {name: value for name, value in node.connection_kwargs.items() if name not in {"host", "port"}}
    for name in ("maint_notifications_config", "oss_cluster_maint_notifications_handler", "parser_class"):
        known.pop(name, None)
    kind = SSLConnection if issubclass(node.connection_class, SSLConnection) else PlainConnection
    return await _connected(kind(host=node.host, port=node.port, **{**known, **_OURS, "retry": once()}))
