"""Loop, Transport and TcpInfo: the thin edge to the operating system."""

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from chat_helpers import SECOND

from chat.net import stamps
from chat.net.loop import Loop
from chat.net.stamps import Arrival, StampingTransport
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Transport, resolve, set_up
from chat.words import reason_of

pytestmark = pytest.mark.realtime("chat")


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_timers_run_in_order_and_not_too_early(loop: Loop) -> None:
    called: list[str] = []
    start_ns = loop.now_ns()
    loop.call_later(0.02, lambda: called.append("late"))
    loop.call_at(start_ns, lambda: called.append("first"))
    loop.call_at(start_ns, lambda: called.append("second"))
    cancelled = loop.call_at(start_ns, lambda: called.append("never"))
    cancelled.cancel()
    assert repr(cancelled) == f"<Timer cancelled, was at {start_ns} ns>"
    loop.run_once(0)
    assert called == ["first", "second"]
    while len(called) < 3:
        loop.run_once()
    assert loop.now_ns() - start_ns >= 20_000_000
    assert loop.next_deadline_ns() is None


@pytest.mark.parametrize("clock", ["goes on", "stands still"])
def test_a_timer_that_sets_itself_again_does_not_keep_the_turn_from_ending(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """In virtual time the clock stands still while we compute."""
    if clock == "stands still":
        monkeypatch.setattr(loop, "now_ns", lambda: 0)
    turns = 0

    def again() -> None:
        nonlocal turns
        turns += 1
        loop.call_later(0, again)

    again()
    loop.run_once(0)
    assert turns == 2


def test_the_next_deadline_skips_what_was_cancelled(loop: Loop) -> None:
    loop.call_at(5, lambda: None).cancel()
    assert repr(loop.call_at(7, lambda: None)) == "<Timer at 7 ns>"
    assert loop.next_deadline_ns() == 7


def test_a_timer_may_be_due_in_a_thousand_years(loop: Loop) -> None:
    loop.call_later(3e10, lambda: None)
    loop.call_soon_threadsafe(loop.stop)
    loop.run()


def test_other_threads_wake_it_up(loop: Loop) -> None:
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_later(0.01, thread.start)
    loop.run()
    thread.join()


def test_many_calls_from_another_thread_at_once(loop: Loop) -> None:
    calls: list[int] = []
    for number in range(100_000):
        loop.call_soon_threadsafe(lambda number=number: calls.append(number))  # type: ignore[misc]
    loop.run_once(0)
    assert calls == list(range(100_000))


def test_its_own_descriptor_is_readable_when_a_socket_is(loop: Loop) -> None:
    import select

    assert not select.select([loop.fileno()], [], [], 0)[0]
    loop.call_soon_threadsafe(lambda: None)
    assert select.select([loop.fileno()], [], [], 0)[0]


def test_hooks_run_at_the_end_of_each_turn(loop: Loop) -> None:
    order: list[str] = []

    def hook() -> None:
        order.append("hook")

    loop.at_turn_end(hook)
    loop.call_later(0, lambda: order.append("timer"))
    loop.run_once(0)
    loop.not_at_turn_end(hook)
    loop.run_once(0)
    assert order == ["timer", "hook"]


class End:
    """A transport and what it called back."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.data: list[tuple[bytes, Arrival]] = []
        self.lost: list[str] = []
        self.rooms = 0
        set_up(sock)
        self.transport = StampingTransport(
            loop, sock, on_data=self.arrived, on_writable=self.room, on_lost=self.lost.append
        )

    def arrived(self, data: bytes) -> None:
        self.data.append((data, self.transport.arrival))

    def room(self) -> None:
        self.rooms += 1


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[End, End]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    pair = End(loop, near), End(loop, far)
    yield pair
    for end in pair:
        end.transport.close()


def test_the_kernels_receive_time(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    for _ in range(3):  # the very first segments may come before the kernel has switched its stamps on
        time.sleep(0.005)
        sent_ns = loop.now_ns()
        near.transport.send(b"x")
        arrived_ns = loop.now_ns()
        time.sleep(0.02)
        loop.run_once(1)
    _, arrival = far.data[-1]
    assert arrival.stamped == sys.platform.startswith("linux")
    if arrival.stamped:
        # The two clocks are read one after the other: allow for being interrupted between them.
        assert sent_ns - 1_000_000 < arrival.received_ns < arrived_ns + 10_000_000
    assert arrival.seen_ns >= arrived_ns + 20_000_000


def test_a_clock_that_is_set_makes_no_time_before_the_sending(
    loop: Loop, ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set between the kernel's stamp and the read, as where a computer has slept in between."""
    near, far = ends
    wall_ahead_ns = stamps._wall_ahead_ns

    def arrival() -> tuple[int, Arrival]:
        sent_ns = loop.now_ns()
        near.transport.send(b"x")
        loop.run_once(1)
        return sent_ns, far.data.pop()[1]

    for set_by_ns in (5_000_000_000, -5_000_000_000):
        ahead_ns = wall_ahead_ns(time.monotonic_ns()) + set_by_ns
        monkeypatch.setattr(stamps, "_wall_ahead_ns", lambda _, ahead_ns=ahead_ns: ahead_ns)
        sent_ns, while_set = arrival()
        assert sent_ns < while_set.received_ns == while_set.seen_ns
        assert not while_set.stamped
        assert arrival()[1].stamped == sys.platform.startswith("linux"), "it is known again"


def test_without_stamps(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        set_up(far)
        found: list[bytes] = []
        transport = Transport(loop, far, on_data=found.append, on_writable=lambda: None, on_lost=lambda _: None)
        near.sendall(b"x")
        loop.run_once(1)
        assert found == [b"x"]
        transport.close()


def test_a_full_kernel_takes_no_more_until_there_is_room(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    far.transport.read_on(False)
    data = b"x" * 1_000_000
    while near.transport.send(data) > 0:
        pass
    near.transport.want_writable()
    loop.run_once(0)
    assert near.rooms == 0
    far.transport.read_on(True)
    while near.rooms == 0:
        loop.run_once(1)
    assert near.transport.send(data) > 0


def test_the_end_is_told_once(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    near.transport.finish()
    loop.run_once(1)
    assert far.lost == ["closed by the other end"]
    assert far.transport.closed
    assert far.transport.send(b"x") == 0
    far.transport.close()
    far.transport.finish()
    far.transport.want_writable()
    assert repr(far.transport) == "<Transport closed, fd -1>"
    assert repr(near.transport) == f"<Transport open, fd {near.transport.sock.fileno()}>"


def test_a_reset_while_reading(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    far.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.transport.close()
    loop.run_once(1)
    assert near.lost == ["connection reset by peer"]


def test_a_failed_send_is_told_from_the_loop(loop: Loop, ends: tuple[End, End]) -> None:
    near, _ = ends
    near.transport.read_on(False)
    near.transport.sock.shutdown(socket.SHUT_WR)
    assert near.transport.send(b"x") == 0
    assert near.transport.send(b"x") == 0
    assert near.lost == []
    loop.run_once(0)
    assert near.lost == ["broken pipe"]


def test_close_takes_back_what_was_to_be_told(loop: Loop, ends: tuple[End, End]) -> None:
    near, _ = ends
    near.transport.sock.shutdown(socket.SHUT_WR)
    near.transport.send(b"x")
    near.transport.close()
    loop.run_once(0)
    assert near.lost == []


def test_reasons_are_the_systems_words() -> None:
    assert reason_of(ConnectionRefusedError(111, "Connection refused")) == "connection refused"
    assert reason_of(ValueError("Label Too Long")) == "label too long"
    assert reason_of(OSError()) == "oserror"


def test_tcp_info_of_any_length() -> None:
    data = bytes(100) + struct.pack("=I", 7) + bytes(44) + struct.pack("=I", 1234)
    info = TcpInfo.parse(data)
    assert (info.total_retrans, info.min_rtt_us, info.delivery_rate_Bps) == (7, 1234, None)
    assert TcpInfo.parse(b"") == TcpInfo()
    assert TcpInfo.parse(bytes(600)).reord_seen == 0


def test_tcp_info_of_a_connection(ends: tuple[End, End]) -> None:
    info = TcpInfo.of(ends[0].transport.sock)
    if sys.platform.startswith("linux"):
        assert info is not None
        assert info.total_retrans == 0
        assert info.snd_cwnd is not None
        assert info.snd_cwnd > 0


def test_tcp_info_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert TcpInfo.of(near) is None
        monkeypatch.setattr("sys.platform", "darwin")
        assert TcpInfo.of(near) is None


GEVENT = """
import sys
import chat.client.client, chat.server.server, chat.net.loop, chat.client.events
assert not {"gevent", "locust", "prompt_toolkit"} & set(sys.modules), "importing chat imports too much"
from gevent import monkey
monkey.patch_all()
import gevent, selectors
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1
ticker = gevent.spawn(tick)
if sys.argv[1] == "cooperative":
    loop = chat.net.loop.Loop()
    turn = lambda: loop.run_once(0.05)
else:
    loop = chat.net.loop.Loop(monkey.get_original("selectors", "EpollSelector")())
    watcher = gevent.get_hub().loop.io(loop.fileno(), 1)
    watcher.start(lambda: loop.run_once(0))
    turn = lambda: (loop.run_once(0), gevent.sleep(0.05))
server = chat.server.server.ChatServer(loop, "127.0.0.1", 0)
events = []
clients = [
    chat.client.client.ChatClient(loop, name, server.address, mode="redundant", on_event=events.append)
    for name in ("ana", "ben")
]
for client in clients:
    client.connect()
while not all(len(client.tcp_info()) == 2 for client in clients):
    turn()
for number in range(10):
    for client in clients:
        client.say(str(number))
    while any(client.pending for client in clients):
        turn()
while ticks < 20:
    turn()
for client in clients:
    client.leave()
while not all(client.closed for client in clients):
    turn()
server.close("over")
while not server.idle:
    turn()
assert sum(isinstance(event, chat.client.events.Echoed) for event in events) == 20
print("ok")
"""


@pytest.mark.parametrize("kind", ["cooperative", "watched"])
def test_under_gevent(kind: str) -> None:
    """The selector is looked up when the loop is made: imported before gevent's patch, it cooperates after it."""
    command = [sys.executable, "-W", "error", "-c", GEVENT, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 * SECOND, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_an_ipv6_address_keeps_its_scope_and_may_have_brackets() -> None:
    assert resolve("[::1]", 5) == (socket.AF_INET6, ("::1", 5))
    assert resolve("fe80::5%lo", 5) == (socket.AF_INET6, ("fe80::5", 5, 0, socket.if_nametoindex("lo")))
