"""Clusters of the engines, each of real servers: where clients find them, whom to kill, and whether all is well."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.servers import (
    WITHIN,
    Server,
    amqp_answers,
    free_port,
    nats_server,
    rabbitmq_says,
    rabbitmq_server,
    redis_sentinel,
    redis_server,
)

NODES = 3
SERVICE = "mymaster"
_KEY = "wowevent:{default}"  # any key of the namespace says in which slot all of them are
_DATED = "%d %b %Y %H:%M:%S.%f"
_SAID = 4.0  # seconds in which all of them know
_SPARED = (
    "Lives = fun({P, _}) -> is_pid(P) andalso rpc:call(node(P), erlang, is_process_alive, [P]) =:= true end, "
    "Name = fun(Q) -> binary_to_list(iolist_to_binary(maps:get(name, amqqueue:get_type_state(Q)))) end, "
    "Whole = fun(Q) -> {ok, Members} = rabbit_stream_coordinator:members(Name(Q)), "
    "length(lists:filter(Lives, maps:values(Members))) =:= %d end, "
    "lists:all(Whole, rabbit_amqqueue:list_by_type(stream)) "
    "andalso rabbit_quorum_queue:list_with_minimum_quorum() =:= []."
)
_PIECE = 4096  # bytes that are read at once


class Group(Struct, frozen=True):
    """A cluster that runs."""

    url: str
    victim: Callable[[int], Server]
    """Whom to kill in that round, counted from 0."""
    steady: Callable[[], bool]
    """Whether every node is there, and has everything."""
    nodes: Sequence[Server]
    """All of them."""
    switches: Callable[[], Sequence[float]] = list
    """When another one was made the primary, monotonic; of those that say so."""


@contextmanager
def ended(*servers: Server) -> Iterator[None]:
    """Each of them is ended behind the block, whatever becomes of the others; the last one first."""
    with ExitStack() as ends:
        for server in servers:
            ends.callback(server.kill)
        yield


def start_together(servers: Sequence[Server]) -> None:
    """Those that answer only once they have found each other."""
    for server in servers:
        server.begin()
    for server in servers:
        server.ready()


# ---------------------------------------------------------------------------------------------------- NATS


@contextmanager
def nats(folder: Path, *, replicas: int = NODES) -> Iterator[Group]:
    """Three nodes, each of which is killed once."""
    ports, routes = [free_port() for _ in range(NODES)], [free_port() for _ in range(NODES)]
    known = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
    nodes = [
        nats_server(
            folder / f"node-{number}",
            f"server_name: node-{number}",
            f"cluster {{ name: tests, listen: 127.0.0.1:{routes[number]}, routes: [{known}] }}",
            port=ports[number],
        )
        for number in range(NODES)
    ]
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    with ended(*nodes):
        start_together(nodes)
        yield Group(f"nats://{hosts}?replicas={replicas}", nodes.__getitem__, lambda: _nats_steady(ports), nodes)


def nats_leader(group: Group, stream: str) -> int:
    """The number of the node that leads a stream."""
    with _asking(group.nodes[0].port) as ask:
        return int(ask(f"STREAM.INFO.{stream}")["cluster"]["leader"].removeprefix("node-"))


def _nats_steady(ports: Sequence[int]) -> bool:
    """Every stream and consumer has a leader, and followers that have all that it has; each node says so."""
    return all(_nats_knows(port) for port in ports)


def _nats_knows(port: int) -> bool:
    with suppress(OSError, ValueError, KeyError), _asking(port) as ask:
        streams = ask("STREAM.LIST")
        found = streams["streams"] or []
        consumers = [ask(f"CONSUMER.LIST.{stream['config']['name']}") for stream in found]
        found = found + [consumer for each in consumers for consumer in each["consumers"] or []]
        whole = len(streams["streams"] or []) == streams["total"] and not any(each.get("missing") for each in consumers)
        return whole and all(_led(each["cluster"]) for each in found)
    return False


def _led(cluster: dict[str, Any]) -> bool:
    followers = cluster.get("replicas") or []
    return bool(cluster.get("leader")) and all(each["current"] and not each.get("offline") for each in followers)


@contextmanager
def _asking(port: int) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Questions to the JetStream API of one node."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as line, line.makefile("rb") as stream:
        line.sendall(b'CONNECT {"verbose":false}\r\nSUB i 1\r\n')

        def ask(subject: str) -> dict[str, Any]:
            line.sendall(f"PUB $JS.API.{subject} i 0\r\n\r\n".encode())
            while head := stream.readline():
                if head.startswith(b"PING"):
                    line.sendall(b"PONG\r\n")
                elif head.startswith(b"MSG"):
                    found: dict[str, Any] = json.loads(stream.read(int(head.split()[-1]) + 2))
                    return found
            raise ConnectionError("the node went away")

        yield ask


# ---------------------------------------------------------------------------------------------------- RabbitMQ


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Group]:
    """Three nodes, whose minority stops; their port mapper outlives each of them."""
    home, mapper = folder / "home", free_port()
    home.mkdir(parents=True)
    ports = [free_port() for _ in range(NODES)]
    settings = [
        "cluster_partition_handling = pause_minority",
        "cluster_formation.peer_discovery_backend = classic_config",
        "cluster_formation.randomized_startup_delay_range.min = 0",
        "cluster_formation.randomized_startup_delay_range.max = 1",
        *(f"cluster_formation.classic_config.nodes.{n + 1} = wowevent{ports[n]}@localhost" for n in range(NODES)),
    ]
    names = Server(["epmd", "-port", str(mapper), "-address", "127.0.0.1"], mapper, home, answers=_listens)
    nodes = [
        rabbitmq_server(folder / f"node-{n}", *settings, port=ports[n], shared=(home, mapper)) for n in range(NODES)
    ]
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    with ended(names, *nodes):
        names.start()
        for node in nodes:  # one after another: the first makes the cluster, the others find it
            node.start()
        yield Group(f"amqp://guest:guest@{hosts}/", nodes.__getitem__, lambda: all(map(_rabbitmq_steady, nodes)), nodes)


def _rabbitmq_steady(node: Server) -> bool:
    """It serves, and could be spared: each stream has all of its replicas, each quorum queue one more than it needs.

    A node that has just come back serves before its replicas are there. Who kills the next one then kills the majority.
    """
    with suppress(AssertionError, OSError, subprocess.SubprocessError):
        return amqp_answers(node.port) and rabbitmq_says(node, _SPARED % NODES) == "{ok, true}"
    return False


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


# ---------------------------------------------------------------------------------------------------- Redis


@contextmanager
def sentinel(folder: Path, *options: str) -> Iterator[Group]:
    """A primary, two replicas and three Sentinels, two of which must agree; who is the primary is killed."""
    first = redis_server(folder / "node-0", *options)
    follow = ("--replicaof", "127.0.0.1", str(first.port))
    nodes = [first, *(redis_server(folder / f"node-{n}", *options, *follow) for n in range(1, NODES))]
    watchers = [redis_sentinel(folder / f"sentinel-{n}", first, SERVICE, quorum=2) for n in range(NODES)]

    def named() -> Server | None:
        ports = {_primary_port(watcher) for watcher in watchers}
        return next((node for node in nodes if {node.port} == ports), None)

    def primary(_round: int) -> Server:
        found = named()
        assert found is not None, "the Sentinels do not agree"
        return found

    def steady() -> bool:
        agreed = [_ask(watcher, f"SENTINEL CKQUORUM {SERVICE}") for watcher in watchers]
        known = [_ask(watcher, f"SENTINEL REPLICAS {SERVICE}") for watcher in watchers]
        well = all(f"+OK {NODES} usable" in each for each in agreed)
        well = well and all(each.count("flags\r\n$5\r\nslave\r\n") == NODES - 1 for each in known)
        found = named()
        return well and found is not None and _followed(found, NODES - 1)

    with ended(*nodes, *watchers):
        start_together([*nodes, *watchers])
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in watchers)
        yield Group(f"redis+sentinel://{hosts}/{SERVICE}", primary, steady, nodes, lambda: _switches(watchers))


@contextmanager
def slots(folder: Path, *options: str) -> Iterator[Group]:
    """A Redis Cluster of three primaries with a replica each; the primary of the namespace's slot is killed."""
    count = 2 * NODES
    cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    nodes = [
        redis_server(folder / f"node-{n}", *cluster, "--cluster-port", str(free_port()), *options) for n in range(count)
    ]
    addresses = [f"127.0.0.1:{node.port}" for node in nodes]

    def primary(_round: int) -> Server:
        asked = next(node for node in nodes if node.process is not None)
        slot = int(_ask(asked, f"CLUSTER KEYSLOT {_KEY}")[1:])
        return next(node for node in nodes if node.port == _owner(asked, slot))

    def steady() -> bool:
        states = [_ask(node, "CLUSTER INFO") for node in nodes]
        well = all("cluster_state:ok" in each and f"cluster_known_nodes:{count}" in each for each in states)
        views = [_ask(node, "CLUSTER NODES") for node in nodes]
        return well and not any("fail" in each for each in views) and _followed(primary(0), 1)

    with ended(*nodes):
        start_together(nodes)
        program = shutil.which("redis-cli")
        assert program is not None, "redis-cli is not installed: make servers"
        make = [program, "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(make, check=True, capture_output=True, timeout=60)
        deadline = time.monotonic() + WITHIN
        while not steady():
            assert time.monotonic() < deadline, "the cluster did not form"
            time.sleep(0.1)
        yield Group(f"redis+cluster://{','.join(addresses)}", primary, steady, nodes)


def cut_off(group: Group) -> None:
    """The replicas of a group with Sentinels hear their primary no more, which knows it."""
    primary = group.victim(0)
    for node in group.nodes:
        if node is not primary:
            _ask(node, f"REPLICAOF 127.0.0.1 {free_port()}")


def _ask(server: Server, command: str) -> str:
    """What it answers, all of it: a line, or a text with its length before it, or a list."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=2) as line:
        line.settimeout(2)
        line.sendall(f"{command}\r\nPING\r\n".encode())
        got = b""
        while not got.endswith(b"+PONG\r\n"):
            more = line.recv(_PIECE)
            if not more:
                break
            got += more
        return got.removesuffix(b"+PONG\r\n").decode()
    return ""


def _switches(watchers: Sequence[Server]) -> list[float]:
    """By the logs of the Sentinels: each says so for itself, when it knows of it."""
    since, found = time.time() - time.monotonic(), list[float]()
    said = [line.split()[1:5] for watcher in watchers for line in watcher.log.splitlines() if "+switch-master" in line]
    for moment in sorted(datetime.strptime(" ".join(words), _DATED).astimezone().timestamp() for words in said):
        if not found or moment - since > found[-1] + _SAID:
            found.append(moment - since)
    return found


def _primary_port(watcher: Server) -> int:
    """The port that a Sentinel names; 0 if it names none."""
    words = _ask(watcher, f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}").split("\r\n")
    return int(words[4]) if len(words) > 4 else 0


def _followed(primary: Server, count: int) -> bool:
    """Whether so many replicas have what the primary has."""
    return _ask(primary, "INFO REPLICATION").count("state=online") == count


def _owner(asked: Server, slot: int) -> int:
    """The port of the primary that has a slot, as one node knows it."""
    for line in _ask(asked, "CLUSTER NODES").splitlines():
        words = line.split()
        for part in words[8:]:
            low, _, high = part.partition("-")
            if low.isdecimal() and int(low) <= slot <= int(high or low):
                return int(words[1].partition("@")[0].rpartition(":")[2])
    return 0
