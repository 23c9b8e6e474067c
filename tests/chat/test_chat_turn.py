"""Turn: however many have much to say, those who say little do not wait for them, and nobody waits for ever."""

import gc
import socket

import pytest
from chat_helpers import RawClient, server_process

from chat.net.loop import Loop
from chat.net.transport import Transport
from chat.server.members import Connection, Session
from chat.server.peer import Peer
from chat.server.server import ChatServer
from chat.server.turn import LEAST_UNITS, UNITS, Turn


class Talker:
    """Has so many units of work left."""

    def __init__(self, turn: Turn, name: str, units: float, done: list[str]) -> None:
        self._turn, self._name, self._units, self._done = turn, name, units, done
        turn.queue(self)

    def go_on(self) -> None:
        spent = min(self._units, self._turn.share)
        self._units -= spent
        self._turn.spend(spent)
        self._done.append(self._name)
        if self._units:
            self._turn.queue(self)


def test_a_turn_has_an_end_and_the_queue_goes_round() -> None:
    loop = Loop()
    turn, done = Turn(loop), list[str]()
    loop.at_turn_end(turn.end)
    Talker(turn, "much", 3 * UNITS, done)
    for name in ("a", "b", "c"):
        Talker(turn, name, UNITS / 2, done)
    turns = []
    while "Turn with 512 units left, 0 waiting" not in repr(turn):
        before = len(done)
        loop.run_once(0)
        turns.append("".join(done[before:]))
    assert turns == ["much", "ab", "cmuch", "much", "much"], "half a turn is left for it after c"
    loop.close()


def test_who_comes_in_a_full_turn_has_a_little() -> None:
    loop = Loop()
    turn = Turn(loop)
    assert turn.share == UNITS
    turn.spend(UNITS)
    assert turn.share == LEAST_UNITS
    turn.end()
    assert turn.share == UNITS
    loop.close()


@pytest.mark.realtime("chat")
def test_what_waits_for_its_turn_is_neither_lost_nor_doubled() -> None:
    """More than a turn holds from each of several, in one go."""
    with server_process() as server, RawClient(server.address, "witness") as witness:
        floods = [RawClient(server.address, f"flood{number}") for number in range(5)]
        for flood in floods:
            flood.sock.sendall(b"".join(b'{"type":"say","text":"%d","id":%d}\n' % (n, n) for n in range(1, 2_001)))
        heard: dict[str, list[int]] = {}
        for _ in range(10_000):
            line = witness.until("said")
            heard.setdefault(line["from"], []).append(int(line["text"]))
        assert heard == {f"flood{number}": list(range(1, 2_001)) for number in range(5)}
        for flood in floods:
            flood.close()


@pytest.mark.realtime("chat")
@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.0\r\n", b'{"type":"hello","nick":"ana"}\n'])
def test_a_connection_that_has_ended_leaves_nothing_for_the_garbage_collector(first: bytes) -> None:
    """Its search would stop everybody, the more often the more strangers come and go."""
    loop = Loop()
    server = ChatServer(loop, "127.0.0.1", 0)

    def visit() -> None:
        with socket.create_connection(server.address) as visitor:
            visitor.sendall(first)
            while server.idle:
                loop.run_once(0.1)
            loop.run_once(0.01)
        while not server.idle:
            loop.run_once(0.1)

    def left() -> list[object]:
        return [each for each in gc.get_objects() if isinstance(each, Peer | Transport | Connection | Session)]

    gc.collect()
    before = left()
    gc.disable()
    try:
        visit()
        assert left() == before
    finally:
        gc.enable()
    server.close("done")
    loop.close()
