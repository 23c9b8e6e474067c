"""The work that TLS makes has a price and its part of a turn, like everything else. chat/README.md, "Limits"."""

import contextlib
import gc
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from test_chat_tls import Certificate, make
from test_chat_turn import StillLoop

from chat.net.tls import Tls, client_context, server_context
from chat.protocol.limits import Limits
from chat.server import peer as peers
from chat.server.costs import BARREN, UNIT_NS
from chat.server.peer import Peer
from chat.server.server import LINGER_S, ChatServer
from chat.server.turn import UNITS, Turn

#: So many units each step of a handshake takes, where a test says so.
STEP_UNITS = 100
#: More than a step costs beyond a store of half as much.
REGISTRATION_S = 40.0
HELLO = b'{"type":"hello","nick":"ana"}\n'


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make(tmp_path_factory.mktemp("certificates"), "good", "IP:127.0.0.1")


class House:
    """A server in a loop whose clock stands still, and who comes to it."""

    def __init__(self, good: Certificate, limits: Limits) -> None:
        self.loop = StillLoop()
        self.server = ChatServer(
            self.loop, "127.0.0.1", 0, limits=limits, registration_s=REGISTRATION_S, tls=server_context(*good)
        )
        self._context = client_context(good.certificate)
        self.guests: list[Guest] = []

    def come(self) -> "Guest":
        """Somebody whose first record has been sent, and who has been let in."""
        number = self.server.accepted
        guest = Guest(self.server, Tls(self._context, "127.0.0.1"))
        self.guests.append(guest)
        self.until(lambda: self.server.accepted > number)
        guest.peer = [*self.server._peers.values()][-1]
        return guest

    def until(self, happened: Callable[[], object]) -> None:
        """Run turns, and let everybody read."""
        while not happened():
            self.loop.run_once(0)
            for guest in self.guests:
                guest.read()

    def empty(self) -> None:
        """Time passes, and who has said nothing is sent away."""
        for seconds in (REGISTRATION_S, LINGER_S):
            self.loop.at_ns += int(seconds * 1e9)
            for _ in self.guests:  # a few go in a turn
                self.loop.run_once(0)
        assert self.server.idle

    def close(self) -> None:
        self.server.close("done")
        self.loop.at_ns += int(LINGER_S * 1e9)
        self.until(lambda: self.server.idle)
        for guest in self.guests:
            guest.sock.close()
        self.loop.close()


class Guest:
    """The other end of a connection; it sends what it likes."""

    peer: Peer

    def __init__(self, server: ChatServer, tls: Tls) -> None:
        self.tls, self.heard = tls, b""
        self.sock = socket.create_connection(server.address)
        self.sock.sendall(tls.records())
        self.sock.setblocking(False)

    def read(self) -> None:
        with contextlib.suppress(OSError):  # nothing there, or closed
            if data := self.sock.recv(65_536):
                self.heard += b"".join(self.tls.decrypt(data))
                self.sock.sendall(self.tls.records())

    def say(self, *records: bytes) -> None:
        self.sock.sendall(b"".join(map(self.tls.encrypt, records)))


@pytest.fixture
def house(good: Certificate, request: pytest.FixtureRequest) -> Iterator[House]:
    house = House(good, getattr(request, "param", Limits()))
    yield house
    house.close()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Tls]:
    """Whose handshake has gone on, each time."""
    steps: list[Tls] = []
    go_on = Tls._go_on
    monkeypatch.setattr(Tls, "_go_on", lambda tls: (steps.append(tls), go_on(tls))[1])
    return steps


@pytest.fixture
def cpu_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """By which each step takes as long as the others."""
    times_ns = iter(range(0, 10**15, STEP_UNITS * UNIT_NS))
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(times_ns))


def budget(*, burst: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("house", [Limits(cost_per_s=1, cost_burst=burst)], indirect=True)


def test_one_handshake_in_a_turn(house: House, steps: list[Tls]) -> None:
    """However many come at once: who has little to say is served between them."""
    guests = [house.come() for _ in range(8)]
    per_turn = []
    while not all(guest.tls.ready and guest.peer.transport.ready for guest in guests):
        steps.clear()
        house.loop.run_once(0)
        per_turn.append(len(set(steps)))
        for guest in guests:
            guest.read()
    assert max(per_turn) == 1


def test_records_without_a_message_take_their_part_of_a_turn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = house.come()
    house.until(lambda: guest.tls.ready)
    guest.say(HELLO)
    house.until(lambda: b"welcome" in guest.heard)
    spent, turns = [0.0], list[float]()
    spend, end = Turn.spend, Turn.end
    monkeypatch.setattr(Turn, "spend", lambda turn, units: (spent.append(units), spend(turn, units))[1])
    monkeypatch.setattr(Turn, "end", lambda turn: (turns.append(sum(spent)), spent.clear(), end(turn))[2])
    guest.say(*[b"\n"] * 1_000, b'{"type":"ping","n":7}\n')
    house.until(lambda: b"pong" in guest.heard)
    assert sum(turns) + sum(spent) >= 1_000 * BARREN
    assert max(turns) <= UNITS + BARREN


@budget(burst=STEP_UNITS // 2)
@pytest.mark.usefixtures("cpu_clock")
def test_a_handshake_costs_what_it_takes(house: House) -> None:
    peer = house.come().peer
    house.until(lambda: peer._pause or peer.transport.ready)
    assert peer._pause_end_ns == pytest.approx((STEP_UNITS // 2 + BARREN) * 1e9, abs=10)


@budget(burst=STEP_UNITS // 2)
@pytest.mark.usefixtures("cpu_clock")
def test_who_begins_and_goes_again_and_again_has_to_wait(house: House, steps: list[Tls]) -> None:
    """The next handshake from there is not had for nothing; but it is had."""
    first = house.come()
    house.until(lambda: first.peer._pause or first.peer.transport.ready)
    house.empty()
    second = house.come()
    tls = second.peer.transport._tls
    house.until(lambda: second.peer._pause or second.peer.transport.ready)
    assert tls not in steps
    house.loop.at_ns += int((STEP_UNITS // 2 + BARREN - REGISTRATION_S - LINGER_S) * 1e9) + 1
    house.until(lambda: tls in steps)


@budget(burst=10_000)
@pytest.mark.usefixtures("cpu_clock")
def test_another_connection_of_a_session_pays_for_its_own_handshake(house: House) -> None:
    first = house.come()
    house.until(lambda: first.tls.ready)
    first.say(HELLO)
    house.until(lambda: b"welcome" in first.heard)
    (session,) = house.server.hub._by_token.values()
    assert session.budget is not None
    before = session.budget._balance
    second = house.come()
    house.until(lambda: second.tls.ready)
    second.say(b'{"type":"attach","token":"%s"}\n' % session.token.encode())
    house.until(lambda: b"attached" in second.heard)
    assert session.budget._balance == before
    assert second.peer._own_budget is not None
    assert 10_000 - second.peer._own_budget._balance > 2 * STEP_UNITS


@pytest.mark.realtime("chat")
@budget(burst=60)
def test_who_changes_its_key_again_and_again_is_read_no_further(
    house: House, good: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other people's program does when it is told to: all that is read in one go, record by record."""
    monkeypatch.setattr(peers, "UNIT_NS", 10**15)  # the handshake costs next to nothing
    host, port = house.server.address
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", good.certificate, "-tls1_3"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None
        os.set_blocking(talk.stdout.fileno(), False)
        talk.stdin.write(HELLO)
        heard = b""
        while b'"welcome"' not in heard:
            assert talk.poll() is None, heard
            house.loop.run_once(0)
            heard += talk.stdout.read() or b""
        for number in range(1, 61):
            talk.stdin.write(b"K\n")
            while heard.count(b"KEYUPDATE") < number:
                assert talk.poll() is None, heard
                heard += talk.stdout.read() or b""
        talk.stdin.write(b'{"type":"ping"}\n')
        (peer,) = house.server._peers.values()
        while not peer._pause and b"pong" not in heard:
            house.loop.run_once(0)
            heard += talk.stdout.read() or b""
        assert peer._pause
        talk.kill()


@budget(burst=STEP_UNITS // 2)
@pytest.mark.usefixtures("cpu_clock")
def test_who_is_sent_away_in_its_handshake_leaves_nothing_for_the_garbage_collector(house: House) -> None:
    guest = house.come()
    house.until(lambda: guest.peer._pause)
    del guest.peer
    gc.collect()
    gc.disable()
    try:
        house.empty()
        assert not [each for each in gc.get_objects() if isinstance(each, Peer)]
    finally:
        gc.enable()
