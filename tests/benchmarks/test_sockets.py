"""The lean WebSocket clients of the benchmarks: right frames, a window that holds, and what comes twice is noticed."""

from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from benchmarks import side as sides
from benchmarks.parts.routers import Share
from benchmarks.parts.sockets import Counter, Publisher, masked, publishing
from benchmarks.places import behind_socket, memory
from benchmarks.side import Lost, Part, Side
from wowevent.router.wire import Publish, decode, event_of


class Socket:
    """Keeps what is written: the publisher's frames are what is looked at here."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.socket = self

    def write(self, data: bytes) -> None:
        self.written.append(data)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_is_what_another_implementation_reads(size: int):
    protocol = ServerProtocol(state=State.OPEN)
    protocol.receive_data(masked(b"x" * size))
    (frame,) = protocol.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, b"x" * size)


def test_a_published_event_is_one_that_the_router_takes():
    id, frame = publishing(7)
    read = decode(frame[8:])
    assert isinstance(read, Publish)
    assert event_of(read, None).event_id == id


def test_there_is_never_more_on_its_way_than_the_window():
    frames = [b"%d," % number for number in range(10)]
    counter = Counter(10)
    publisher = Publisher(frames, 4, [counter], confirmed=True)
    socket: Any = Socket()
    publisher.client = socket
    publisher.pump()
    assert socket.written == [b"0,1,2,3,"]
    for _ in range(2):
        publisher.take(b'{"status":"queued"}')
    assert len(socket.written) == 1  # confirmed, and not delivered yet
    counter.take(b'"event_id" "event_id"')
    publisher.pump()
    assert socket.written == [b"0,1,2,3,", b"4,5,"]


def test_publishers_of_the_same_events_keep_in_step_and_all_come_through():
    counter = Counter(20)
    sockets: list[Any] = [Socket(), Socket()]
    made = [[b'"event_id",'] * 10, [b'"event_id",'] * 10]
    publishers = [Publisher(frames, 4, [Share(counter, 2)], confirmed=True) for frames in made]
    for publisher, socket in zip(publishers, sockets, strict=True):
        publisher.client = socket
        publisher.pump()
    sent = [0, 0]
    for turn in range(100):
        which = 0 if turn < 50 else turn % 2  # nothing of the second comes until the first can go no further
        coming = b"".join(sockets[which].written)[11 * sent[which] :]
        sent[which] += coming.count(b",")
        counter.take(coming)
        for _ in range(coming.count(b",")):
            publishers[which].take(b'{"status":"queued"}')
        for publisher in publishers:
            publisher.pump()
        if turn == 49:
            assert sent == [6, 0]
    assert sent == [10, 10]


def test_refused_events_are_counted_and_the_welcome_is_not():
    publisher = Publisher([b"a", b"b"], 4, [Counter(2)], confirmed=True)
    publisher.take(b'{"type":"welcome"}')
    publisher.take(b'{"status":"dropped"}')
    assert not publisher.answered.is_set()
    publisher.take(b'{"status":"queued"}')
    assert (publisher.confirmed, publisher.refused, publisher.answered.is_set()) == (1, 1, True)


def test_the_events_of_batches_are_counted_and_the_first_clients_are_kept():
    counter = Counter(3, keep=True)
    counter.take(b'{"type":"welcome"}')
    counter.take(b'[{"event_id":"a"},{"event_id":"b","parent_event_id":"x"}]')
    assert not counter.all.is_set()
    counter.take(b'{"event_id":"c"}')
    assert (counter.seen, counter.ids, counter.all.is_set()) == (3, ["a", "b", "c"], True)


async def test_a_server_that_sends_twice_fails_the_run(tmp_path: Path):
    side = Side(
        name="twice",
        place=behind_socket(memory),
        parts=(Part("tests.benchmarks.lossy:fan_out_twice"), Part("benchmarks.parts.sockets:fan_out")),
        count=20,
        options={"subscribers": 2, "window": 10, "confirm": True},
    )
    with pytest.raises(Lost):
        await sides.run(side, tmp_path)
