"""A live router and its clients, each by a real socket: what comes to whom, what is answered, and what adds up."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import websockets
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from websockets.asyncio.client import ClientConnection, connect

from tests.fuzz.rounds import Rounds
from tests.fuzz.test_codec import is_sayable, levels
from tests.fuzz.test_wire import CLIENT_BYTES, frames
from tests.keys import Keys
from tests.router.conftest import bus_of, desk_of, eventually, quiet  # noqa: F401 - a fixture
from tests.unit.test_topic import oracle
from wowevent.payload import MAX_DEPTH
from wowevent.router import EventRouter

PATIENCE: Final = 20.0
MINE: Final = "asked-"
"""How the refs of questions begin, that are waited for."""
RIGHTS: Final[dict[str, dict[str, Any]]] = {
    "alice": {"publish": ["#"], "subscribe": ["task.#", "a"], "replay": ["#"]},
    "bob": {"publish": ["task.*", "a"], "subscribe": ["#"]},
}
QUEUES: Final = {"alice": {"qa": "task.#", "qb": "a"}, "bob": {"qc": "*", "qd": "task.*"}}
"""The named subscriptions of each agent, and what each takes."""
TOPICS: Final = ("task.created", "task.a.b", "a", "pay.out", "task")

Frame = dict[str, Any]


class Peer:
    """One client: what it has, and what was wrong with what came."""

    def __init__(self, agent: str, socket: ClientConnection) -> None:
        self.agent = agent
        self.socket = socket
        self.wrong: list[str] = []
        self.answers: dict[str, Frame] = {}
        self.patterns: dict[str, list[str]] = {}
        self.credit: dict[str, int] = {}
        self.queues: dict[str, str] = {}
        self.held: dict[str, dict[str, str]] = {}
        self.seen: Counter[tuple[str, str]] = Counter()
        self.heard = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                self._take(json.loads(text))
                self.heard.set()
        except websockets.ConnectionClosed:
            pass  # whoever waits for an answer is told
        finally:
            self.heard.set()

    def _take(self, frame: Frame) -> None:
        if isinstance(ref := frame.get("ref"), str) and ref.startswith(MINE):
            if ref in self.answers:
                self.wrong.append(f"answered twice: {frame}")
            self.answers[ref] = frame
        match frame["type"]:
            case "subscribed":
                self.patterns[frame["subscription_id"]] = frame["topics"]
            case "unsubscribed":
                self.patterns.pop(frame["subscription_id"], None)
                self.held.pop(frame["subscription_id"], None)
                self.queues.pop(frame["subscription_id"], None)
            case "event":
                self._deliver(frame)
            case "events":
                for item in frame["events"]:
                    self._deliver(item)

    def _deliver(self, item: Frame) -> None:
        event, id = item["event"], item["subscription_id"]
        if id not in self.patterns or not any(oracle(each, event["topic"]) for each in self.patterns[id]):
            self.wrong.append(f"not subscribed to: {item}")
        if not any(oracle(each, event["topic"]) for each in RIGHTS[self.agent]["subscribe"]):
            self.wrong.append(f"not granted: {item}")
        if event["target_agent"] not in {None, self.agent}:
            self.wrong.append(f"not for {self.agent}: {item}")
        self.seen[id, event["event_id"]] += 1
        if (token := item.get("token")) is None:
            if self.seen[id, event["event_id"]] > 1:
                self.wrong.append(f"twice: {item}")
            return
        held = self.held.setdefault(id, {})
        if token in held:
            self.wrong.append(f"held already: {item}")
        held[token] = event["event_id"]
        if len(held) > self.credit.get(id, 10_000):
            self.wrong.append(f"beyond its credit of {self.credit[id]}: {item}")

    async def until(self, ref: str) -> Frame:
        """The answer to that question."""
        async with asyncio.timeout(PATIENCE):
            while ref not in self.answers and not self.reading.done():
                self.heard.clear()
                await self.heard.wait()
        return self.answers.get(ref, {"type": "gone"})


def is_harmless(data: bytes) -> bool:
    """Whether it is about no subscription, and asks nobody: then what is counted below stays true."""
    return not any(each in data for each in (b"sub-", b"subscr", b"request"))


class RouterMachine(RuleBasedStateMachine):
    """A router of its own for each walk; who breaks a connection by what it sends is left out from then on."""

    def __init__(self, keys: Keys, tokens: dict[str, str]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.tokens = tokens
        self.refs = map(f"{MINE}{{}}".format, itertools.count(1))
        self.router = EventRouter(host="127.0.0.1", port=0, url="memory://", keyring=keys.ring())
        self.peers: list[Peer] = []
        self.declared: dict[str, int] = {}
        """Where the log ended when a queue was declared."""
        self.acked: Counter[str] = Counter()
        self.run(self.router.open())

    def run(self, job: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(job)

    # --- what clients do ---------------------------------------------------------------------------------------------

    @initialize()
    def two_come(self) -> None:
        for agent in RIGHTS:
            self.run(self._join(agent))

    @precondition(lambda self: len(self.peers) < 4)
    @rule(agent=st.sampled_from(sorted(RIGHTS)))
    def one_comes(self, agent: str) -> None:
        self.run(self._join(agent))

    @precondition(lambda self: len(self.peers) > 1)
    @rule(which=st.integers(0, 3), politely=st.booleans())
    def one_goes(self, which: int, politely: bool) -> None:
        self.run(self._leave(self.peers.pop(which % len(self.peers)), politely=politely))

    @rule(
        which=st.integers(0, 3),
        topic=st.sampled_from(TOPICS),
        whom=st.sampled_from((None, None, "alice", "bob")),
        priority=st.integers(1, 10),
        count=st.integers(1, 4),
    )
    def one_publishes(self, which: int, topic: str, whom: str | None, priority: int, count: int) -> None:
        peer = self.peers[which % len(self.peers)]
        granted = any(oracle(each, topic) for each in RIGHTS[peer.agent]["publish"])
        for _ in range(count):
            answer = self.ask(peer, "publish", event={"topic": topic, "target_agent": whom, "priority": priority})
            assert answer["type"] == ("published" if granted else "error"), answer

    @rule(
        which=st.integers(0, 3),
        topics=st.lists(st.sampled_from(("task.*", "*", "a", "task.#", "#.b")), min_size=1, max_size=2),
    )
    def one_listens(self, which: int, topics: list[str]) -> None:
        self.ask(self.peers[which % len(self.peers)], "subscribe", subscription={"topics": topics})

    @rule(
        which=st.integers(0, 3),
        queue=st.sampled_from(("qa", "qb", "qc", "qd")),
        credit=st.integers(1, 5),
        retries=st.integers(0, 2),
    )
    def one_serves_a_queue(self, which: int, queue: str, credit: int, retries: int) -> None:
        peer = self.peers[which % len(self.peers)]
        own = queue in QUEUES[peer.agent]
        if not own and queue not in self.declared:
            return  # whoever is there first may have it
        topic = {name: topic for queues in QUEUES.values() for name, topic in queues.items()}[queue]
        self.declared.setdefault(queue, self.run(self._end_of_log()))
        wanted = {"topics": [topic], "subscription": queue, "credit": credit, "max_retries": retries, "lease": 30}
        answer = self.ask(peer, "subscribe", subscription=wanted)
        again = any(name == queue for name in peer.queues.values())
        assert answer["type"] == ("subscribed" if own and not again else "error"), answer
        if answer["type"] == "subscribed":
            peer.credit[answer["subscription_id"]] = credit
            peer.queues[answer["subscription_id"]] = queue

    @rule(
        which=st.integers(0, 3),
        how=st.sampled_from(({}, {"error": "no"}, {"reject": True}, {"release": True}, {"retry_after": 0}, None)),
        most=st.integers(1, 3),
    )
    def one_settles(self, which: int, how: Frame | None, most: int) -> None:
        peer = self.peers[which % len(self.peers)]
        for id, held in list(peer.held.items()):
            tokens = list(held)[:most]
            if not tokens or id not in peer.patterns:
                continue
            for token in tokens:  # from here on others may take their place
                del held[token]
            answer = self.ask(
                peer, "ack" if how == {} else "nack", subscription_id=id, tokens=tokens, **(how or {"pause": 0})
            )
            assert answer["type"] in {"settled", "gone"}, answer
            if how == {} and answer["type"] == "settled":
                self.acked.update({"all": answer["settled"]})

    @rule(which=st.integers(0, 3), number=st.integers(1, 8))
    def one_wants_no_more(self, which: int, number: int) -> None:
        peer = self.peers[which % len(self.peers)]
        known = f"sub-{number}" in peer.patterns
        answer = self.ask(peer, "unsubscribe", subscription_id=f"sub-{number}")
        assert answer["type"] == ("unsubscribed" if known else "error"), answer

    @rule(which=st.integers(0, 3), said=st.lists(frames(), min_size=1, max_size=12))
    def one_says_much_at_once(self, which: int, said: list[Frame]) -> None:
        """Every frame that has a ref is answered, or the connection ends."""
        peer = self.peers[which % len(self.peers)]
        refs = []
        for fields in said:
            data = json.dumps({**fields, "ref": next(self.refs)})
            if is_harmless(data.encode()) and is_sayable(fields) and levels(fields) < MAX_DEPTH:
                refs.append(json.loads(data)["ref"])
                self.run(self._send(peer, data.encode()))
        for ref in refs:
            self.run(peer.until(ref))

    @rule(which=st.integers(0, 3), data=CLIENT_BYTES.filter(is_harmless))
    def one_says_anything(self, which: int, data: bytes) -> None:
        peer = self.peers[which % len(self.peers)]
        self.run(self._send(peer, data))
        if self.ask(peer, "ping")["type"] == "gone":
            self.peers.remove(peer)
            self.run(self._leave(peer, politely=False))
            self.run(self._join(peer.agent))

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_was_wrong(self) -> None:
        assert not [wrong for peer in self.peers for wrong in peer.wrong]
        assert all(len(peer.held.get(id, ())) <= credit for peer in self.peers for id, credit in peer.credit.items())

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.runner.close()

    async def _end(self) -> None:
        try:
            for peer in self.peers:
                await self._ask(peer, "ping")
            await eventually(self._all_are_here)  # who went without a word is noticed
            for peer in self.peers:
                await self._leave(peer, politely=True)
            await self._check_sums()
        finally:
            await self.router.stop(timeout=5)

    async def _all_are_here(self) -> bool:
        clients: int = (await self.router.health())["clients"]
        return clients == len(self.peers)

    async def _check_sums(self) -> None:
        """What a queue was to get was acknowledged, is a dead letter, or waits."""
        bus = bus_of(self.router)
        published = [stored async for stored in bus.history()]
        wanted = there = 0
        for agent, queues in QUEUES.items():
            for queue, pattern in queues.items():
                if queue not in self.declared:
                    continue
                info = await bus.broker.info(queue)
                assert info is not None
                mine = [stored for stored in published if stored.position.offset > self.declared[queue]]
                wanted += sum(oracle(pattern, s.event.topic) and s.event.target_agent in {None, agent} for s in mine)
                there += info.ready + (info.leased or 0) + (info.delayed or 0) + info.dead
        assert there + self.acked["all"] == wanted

    # --- saying and hearing ------------------------------------------------------------------------------------------

    def say(self, peer: Peer, type: str, **fields: Any) -> str:
        ref = next(self.refs)
        self.run(self._send(peer, json.dumps({"type": type, "ref": ref, **fields}).encode()))
        return ref

    def ask(self, peer: Peer, type: str, **fields: Any) -> Frame:
        answer: Frame = self.run(self._ask(peer, type, **fields))
        return answer

    async def _ask(self, peer: Peer, type: str, **fields: Any) -> Frame:
        ref = next(self.refs)
        await self._send(peer, json.dumps({"type": type, "ref": ref, **fields}).encode())
        return await peer.until(ref)

    async def _send(self, peer: Peer, data: bytes) -> None:
        with suppress(websockets.ConnectionClosed):
            await peer.socket.send(data, text=True)

    async def _join(self, agent: str) -> None:
        headers = {"Authorization": f"Bearer {self.tokens[agent]}"}
        socket = await connect(
            self.router.url, additional_headers=headers, compression=None, ping_interval=None, proxy=None
        )
        self.peers.append(Peer(agent, socket))

    async def _leave(self, peer: Peer, *, politely: bool) -> None:
        if politely:
            await peer.socket.close()
        else:
            peer.socket.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({peer.reading})
            await peer.socket.wait_closed()

    async def _end_of_log(self) -> int:
        await desk_of(self.router).intake.drained()
        return (await bus_of(self.router).broker.ping()).head.offset


@pytest.mark.usefixtures("quiet")
def test_any_clients_in_any_order(fuzz: Rounds, tmp_path: Path):
    keys = Keys(tmp_path)
    tokens = {agent: keys.token(agent, **rights) for agent, rights in RIGHTS.items()}
    fuzz.walk(partial(RouterMachine, keys, tokens), short=8, steps=20)
