"""Turn: however many have much to say, those who say little do not wait for them, and nobody waits for ever."""

import gc
import itertools
import socket
from collections.abc import Iterable

import pytest
from chat_helpers import RawClient, server_process

from chat.net.loop import Loop
from chat.net.transport import Transport
from chat.protocol.limits import PUBLIC_LIMITS, Limits
from chat.server.costs import CRUMB
from chat.server.members import Connection, Session
from chat.server.peer import REFILL, SIGN_S, Peer
from chat.server.server import ACCEPTS_PER_TURN, LINGER_S, STRANGE_PAUSE_S, ChatServer
from chat.server.turn import LEAST_UNITS, QUEUE_UNITS, UNITS, Turn


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


def test_a_turn_has_an_end_and_all_who_wait_share_it() -> None:
    loop = Loop()
    turn, done = Turn(loop), list[str]()
    loop.at_turn_end(turn.end)
    Talker(turn, "much", 3 * UNITS, done)
    for name in ("a", "b", "c"):
        Talker(turn, name, UNITS / 2, done)
    turn.end()
    turns = []
    while f"Turn with {UNITS:g} units left, 0 waiting" not in repr(turn):
        before = len(done)
        loop.run_once(0)
        turns.append("".join(done[before:]))
    assert turns == ["muchabc", "muchabc", "much", "much", "much"]
    loop.close()


def test_who_waits_is_served_though_others_have_something_in_every_turn() -> None:
    loop = Loop()
    turn, done = Turn(loop), list[str]()
    loop.at_turn_end(turn.end)
    Talker(turn, "patient", UNITS, done)
    turn.end()
    for _ in range(int(UNITS / QUEUE_UNITS)):
        for _ in range(100):
            turn.spend(turn.share)
        loop.run_once(0)
    assert "0 waiting" in repr(turn)
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


def test_a_crowd_that_can_take_more_is_sent_it_in_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    server = ChatServer(loop, "127.0.0.1", 0)
    crowd = [socket.create_connection(server.address) for _ in range(40)]
    while len(server._peers) < len(crowd):
        loop.run_once(0.1)
    served: list[Connection] = []
    monkeypatch.setattr(server.hub.delivery, "on_writable", served.append)
    for peer in server._peers.values():
        peer._writable()
    counts = []
    while len(served) < len(crowd):
        before = len(served)
        loop.run_once(0)
        counts.append(len(served) - before)
    assert max(counts) == UNITS // REFILL
    assert served == [*server._peers]
    for sock in crowd:
        sock.close()
    while not server.idle:
        loop.run_once(0.1)
    server.close("done")
    loop.close()


class StillLoop(Loop):
    """Its clock goes on only when it is told to."""

    at_ns = 0

    def now_ns(self) -> int:
        return self.at_ns

    def pass_(self, seconds: float) -> None:
        """Run turns, and then once more after so long."""
        for _ in range(20):
            self.run_once(0)
        self.at_ns += int(seconds * 1e9)
        for _ in range(20):
            self.run_once(0)


def test_who_is_sent_away_begins_no_session() -> None:
    """What it had still to say when its time was over, a hello at last, is not heard."""
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=PUBLIC_LIMITS, registration_s=0.1)
    with socket.create_connection(server.address) as slow:
        slow.sendall(b'{"type":"ping"}\n' * (PUBLIC_LIMITS.cost_burst + 1) + b'{"type":"hello","nick":"late"}\n')
        loop.pass_(0.1)  # it waits for its budget, and then its time is over before its turn has come
        loop.pass_(LINGER_S)
        assert server.idle
        assert server.hub.rooms.lobby.log.last_seq == 0, "nobody was told of it"
    server.close("done")
    loop.close()


def test_a_flooder_who_comes_again_waits_all_the_same() -> None:
    """Who has said bye with nothing left is heard, when it is back, as soon as something is earned."""
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=Limits(cost_per_s=1, cost_burst=20))
    flood = b'{"type":"hello","nick":"ana"}\n' + b'{"type":"ping"}\n' * 9 + b'{"type":"bye"}\n'
    with socket.create_connection(server.address) as first:
        first.sendall(flood)
        loop.pass_(0)
        assert first.recv(1 << 16).count(b"pong") == 9
    loop.pass_(0)
    assert server.idle
    with socket.create_connection(server.address) as again:
        again.sendall(flood)
        loop.pass_(0)
        assert server.hub.nicks == [], "the store was left empty"
        loop.pass_(1)
        assert server.hub.nicks == ["ana"]
    server.close("done")
    loop.pass_(LINGER_S)
    loop.close()


@pytest.mark.parametrize("crumb", [b" ", b"\n"])
def test_who_sends_byte_by_byte_pays_for_each(crumb: bytes) -> None:
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=Limits(cost_per_s=1, cost_burst=20))  # hello takes 10.02
    with socket.create_connection(server.address) as ana:
        ana.sendall(b'{"type":"hello","nick":"ana"}\n')
        loop.pass_(0)
        (peer,) = server._peers.values()
        crumbs = 0
        while peer._pause is None and crumbs < 1_000:
            peer._read(crumb)
            crumbs += 1
        assert crumbs == (20 - 10) / CRUMB, "a little more was spent for the hello"
        ana.recv(65_536)
        ana.sendall(b'{"type":"ping"}\n')
        loop.pass_(0)
        loop.pass_(1)
        assert ana.recv(65_536) == b'{"type":"pong"}\n', "nothing is lost: it waits"
    server.close("done")
    loop.pass_(LINGER_S)
    loop.close()


def test_to_attach_makes_nothing_forgotten() -> None:
    """What a connection has spent before it is in a session, and what it costs to let it in, are its own affair."""
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=Limits(cost_per_s=1, cost_burst=20))
    with socket.create_connection(server.address) as keeper:
        keeper.sendall(b'{"type":"hello","nick":"ana"}\n')
        loop.pass_(0)
        (session,) = server.hub._by_token.values()
        assert session.budget is not None
        before = session.budget.balance
        with socket.create_connection(server.address) as flooder:
            flooder.sendall(b'{"type":"ping"}\n' * 10 + b'{"type":"attach","token":"%s"}\n' % session.token.encode())
            loop.pass_(0)
            assert len(session.connections) == 2
            assert session.budget.balance == before
        loop.pass_(0)
        with socket.create_connection(server.address) as again:
            again.sendall(b'{"type":"ping"}\n{"type":"hello","nick":"ben"}\n')
            loop.pass_(0)
            assert server.hub.nicks == ["ana"], "nothing was left"
            loop.pass_(1.1)
            assert server.hub.nicks == ["ana", "ben"]
    server.close("done")
    loop.pass_(LINGER_S)
    loop.close()


@pytest.mark.parametrize("second_says", ["the same", "something else"])
def test_the_second_copy_of_a_message_costs_nothing(second_says: str) -> None:
    """Only what has been paid for comes twice: a second connection makes what is said once no cheaper."""
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=Limits(cost_per_s=1, cost_burst=50))  # hello takes 10
    said = [b'{"type":"say","text":"x","id":%d}\n' % number for number in range(1, 61)]
    with socket.create_connection(server.address) as first, socket.create_connection(server.address) as second:
        first.sendall(b'{"type":"hello","nick":"ana"}\n')
        loop.pass_(0)
        (session,) = server.hub._by_token.values()
        second.sendall(b'{"type":"attach","token":"%s"}\n' % session.token.encode())
        loop.pass_(0)
        first.sendall(b"".join(said[:30]))
        loop.pass_(0)
        second.sendall(b"".join(said[:30] if second_says == "the same" else said[30:]))
        loop.pass_(0)
        is_waiting = any(peer._pause for peer in server._peers.values())
        assert is_waiting == (second_says == "something else")
        assert (server.hub.duplicates == 30) == (second_says == "the same")
    server.close("done")
    loop.pass_(LINGER_S)
    loop.close()


def test_pieces_of_files_take_their_part_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their price is next to nothing, but not the time that they take."""
    spent: list[float] = []
    monkeypatch.setattr(Turn, "spend", lambda _self, units: spent.append(units))
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=PUBLIC_LIMITS)
    with socket.create_connection(server.address) as ana, socket.create_connection(server.address) as ben:
        ben.sendall(b'{"type":"hello","nick":"ben"}\n')
        loop.pass_(0)
        ana.sendall(b'{"type":"hello","nick":"ana"}\n')
        ana.sendall(b'{"type":"file_offer","to":"ben","name":"x","size":99,"sha256":"%s"}\n' % (b"0" * 64))
        loop.pass_(0)
        ben.sendall(b'{"type":"file_accept","file":1}\n{"type":"file_credit","file":1,"offset":0,"again":true}\n')
        loop.pass_(0)
        spent.clear()
        ana.sendall(b"".join(b'{"type":"file_chunk","file":1,"offset":%d,"data":"AA=="}\n' % n for n in range(50)))
        loop.pass_(0)
        assert sum(spent) == 50
    loop.pass_(0)
    server.close("done")
    loop.close()


def test_who_has_to_wait_for_long_is_not_left_in_doubt() -> None:
    """A message that costs a lot stops its connection for a while, in which its client must not take it for dead."""
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, limits=Limits(cost_per_s=1, cost_burst=11))
    with socket.create_connection(server.address) as ana:
        ana.settimeout(10)
        ana.sendall(b'{"type":"hello","nick":"ana"}\n')
        loop.pass_(0)
        ana.sendall(b'{"type":"say","text":"%s"}\n{"type":"ping","n":7}\n' % (b"x" * 8_000))
        loop.pass_(0)
        assert b'"said"' in ana.recv(65_536)
        for _ in range(10):
            loop.pass_(SIGN_S)
            assert ana.recv(65_536) == b'{"type":"pong"}\n'
        loop.pass_(SIGN_S * 10)
        assert b'{"type":"pong","n":7}' in ana.recv(65_536)
        loop.pass_(SIGN_S * 10)
        ana.setblocking(False)
        with pytest.raises(BlockingIOError):
            ana.recv(1)
    loop.pass_(0)
    server.close("done")
    loop.close()


@pytest.mark.parametrize("cuts", [range(1, 30), (2,), (20, 21)])
def test_a_first_line_may_come_in_parts(cuts: Iterable[int]) -> None:
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0)
    line = b'{"type":"hello","nick":"ana"}\n'
    with socket.create_connection(server.address) as slow:
        for begin, end in itertools.pairwise((0, *cuts, len(line))):
            slow.sendall(line[begin:end])
            loop.pass_(0)
        assert server.hub.nicks == ["ana"]
    loop.pass_(0)
    server.close("done")
    loop.close()


def test_after_garbage_the_door_is_shut_for_a_moment() -> None:
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0)
    with socket.create_connection(server.address) as strange:
        strange.sendall(b"GET / HTTP/1.0\r\n")
        loop.pass_(0)
        with socket.create_connection(server.address):
            loop.pass_(0)
            assert server.accepted == 1
            loop.pass_(STRANGE_PAUSE_S)
            assert server.accepted == 2
    loop.pass_(0)
    server.close("done")
    loop.close()


def test_silent_strangers_are_sent_away_a_few_in_a_turn() -> None:
    loop = StillLoop()
    server = ChatServer(loop, "127.0.0.1", 0, registration_s=0.1)
    silent = [socket.create_connection(server.address) for _ in range(3 * ACCEPTS_PER_TURN)]
    loop.pass_(0)
    assert server.strangers == 3 * ACCEPTS_PER_TURN
    loop.at_ns += int(0.1 * 1e9)
    for _ in range(3):
        before = server.strangers
        loop.run_once(0)
        assert before - server.strangers == ACCEPTS_PER_TURN
    for each in silent:
        each.close()
    loop.pass_(0)
    server.close("done")
    loop.close()
