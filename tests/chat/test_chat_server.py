"""A real server process, spoken to over real sockets. Sections named are those of chat/README.md."""

import contextlib
import json
import resource
import select
import signal
import socket
import struct
import subprocess
import sys

import psutil
import pytest
from chat_helpers import SECOND, Clients, RawClient, ServerProcess, server_process

from chat.net.loop import Loop
from chat.protocol.fields import LOBBY
from chat.server.members import FULL_BYTES, Connection
from chat.server.server import ChatServer

pytestmark = pytest.mark.realtime("chat")


def test_many_clients_see_everything_in_the_same_order(server: ServerProcess) -> None:
    """Logs: each line has one number, and followers get all of them."""
    clients = [RawClient(server.address, f"many{number}") for number in range(30)]
    for number, client in enumerate(clients):
        for turn in range(5):
            client.send(type="say", text=f"{number} {turn}", id=turn + 1)
    seen = [[client.until("said") for _ in range(150)] for client in clients]
    assert [client.sync() for client in clients] == [[]] * 30
    for client in clients:
        client.close()
    assert len({message["seq"] for message in seen[0]}) == 150
    assert all(each == seen[0] for each in seen)
    with RawClient(server.address, "barrier") as last:
        while any(nick.startswith("many") for nick in last.ask("present", type="who")["nicks"]):
            last.sync()


def test_say_and_tell_without_ids(server: ServerProcess) -> None:
    """Up: `id` is optional, for people with nc."""
    with RawClient(server.address, "ana") as ana, RawClient(server.address, "ben") as ben:
        ana.send_line(b'  {"type":"say","text":"hi"}\r')
        assert ben.until("said")["text"] == "hi"
        ben.send(type="tell", to="ANA", text="psst")
        assert ana.until("told")["from"] == ben.until("told")["from"] == "ben"
        ana.send(type="bye")
        assert ana.until("bye")["reason"] == "You said bye."
        assert ana.receive() is None
        assert ben.until("left") == {
            "type": "left",
            "log": LOBBY,
            "seq": ben.welcome["cursors"][LOBBY] + 2,
            "nick": "ana",
            "reason": "said bye",
        }


def test_nick_in_use_and_another_try(server: ServerProcess) -> None:
    """Nicknames are unique without regard to case."""
    with RawClient(server.address, "Ana"), RawClient(server.address) as other:
        assert other.ask("refused", type="hello", nick="ANA")["code"] == "nick_in_use"
        assert other.ask("refused", type="hello", nick="a b")["code"] == "bad_nick"
        assert other.ask("welcome", type="hello", nick="ben")["nick"] == "ben"


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"[]", b"{}", b'{"type":"say"}', b'{"type":"say","text":"x","id":0}', b"\x00", b"[" * 60_000],
)
def test_malformed_lines_do_not_end_the_connection(server: ServerProcess, line: bytes) -> None:
    """Errors: one line back, and on with the next."""
    with RawClient(server.address, "ana") as ana:
        ana.send_line(line + b'\n{"type":"ping","n":7}')
        error = ana.receive()
        assert error is not None
        assert (error["type"], error["code"]) == ("error", "malformed")
        assert ana.receive() == {"type": "pong", "n": 7}


@pytest.mark.parametrize(("data", "code"), [(b"x" * 70_000, "line_too_long"), (b'{"type":"\xff"}\n', "not_utf8")])
def test_unreadable_lines_end_the_connection(server: ServerProcess, data: bytes, code: str) -> None:
    """Errors: where the next line would begin, or what it means, is unknown."""
    with RawClient(server.address, "ben") as ben, RawClient(server.address, "ana") as ana:
        ana.sock.sendall(data)
        assert ana.until("error")["code"] == code
        assert ana.receive() is None
        assert ben.until("left")["nick"] == "ana"


def test_a_reset_is_one_left(server: ServerProcess) -> None:
    """Sessions: the last connection's end is the session's."""
    with RawClient(server.address, "ben") as ben:
        ana = RawClient(server.address, "ana")
        ana.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ana.close()
        assert ben.until("left")["nick"] == "ana"
        assert ben.sync() == []


def test_a_slow_reader_delays_nobody_and_is_told_what_it_missed(server: ServerProcess) -> None:
    """Logs: a slow reader costs a cursor; what fell out of the log is announced."""
    text = "x" * 8000
    with RawClient(server.address, "slow") as slow, RawClient(server.address, "ana") as ana:
        start = ana.welcome["cursors"][LOBBY]
        for number in range(2500):  # 20 MB: more than the log and the socket buffers hold together
            ana.send(type="say", text=text, id=number + 1)
            if number % 100 == 99:
                ana.until("said", id=number + 1)
        ana.send(type="bye")
        assert ana.until("bye")
        seqs, missed = [], 0
        while (message := slow.receive()) is not None and message["type"] != "left":
            if message["type"] == "said":
                seqs.append(message["seq"])
            elif message["type"] == "gap":
                missed += message["missed"]
        assert missed > 0
        assert len(seqs) + missed == 2500
        assert seqs == sorted(set(seqs))
        assert seqs[-1] == start + 2500


def test_readers_that_never_read_cost_bounded_memory() -> None:
    """Slow readers: a cursor, the rest of a line, unread answers; and the logs, however many they are."""
    slow_readers, megabytes = 20, 40
    bound_bytes = (2 * 8 << 20) + slow_readers * (128 << 10) + (8 << 20)  # the log, its list while it is cut, the rest
    with server_process() as server, contextlib.ExitStack() as stack:
        for number in range(slow_readers):
            stack.enter_context(RawClient(server.address, f"slow{number}"))
        ana = stack.enter_context(RawClient(server.address, "ana"))
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        worst = 0
        for number in range(megabytes * 125):
            ana.send(type="say", text="x" * 8000, id=number + 1)
            if number % 100 == 99:
                ana.until("said", id=number + 1)
                worst = max(worst, process.memory_info().rss - before)
        print(f"{megabytes} MB past {slow_readers} readers: {worst >> 20} MiB, bound {bound_bytes >> 20} MiB")
        assert worst < bound_bytes


def test_a_slow_reader_is_closed_if_the_server_is_told_so() -> None:
    """Slow readers: the other policy."""
    with (
        server_process("127.0.0.1", "--slow", "close") as server,
        RawClient(server.address, "slow") as slow,
        RawClient(server.address, "ana") as ana,
    ):
        left = []  # which may be while there is still more to be said, or after that
        for number in range(2500):
            ana.send(type="say", text="x" * 8000, id=number + 1)
            if number % 100 == 99:
                while (message := ana.until_any("said", "left")).get("id") != number + 1:
                    left += [message["nick"]] if message["type"] == "left" else []
        assert slow.until("error")["code"] == "too_slow"
        while slow.receive() is not None:
            pass
        assert (left or [ana.until("left")["nick"]]) == ["slow"]


def test_asking_without_reading_the_answers_stops_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow readers: what a connection asks for is bounded by what it takes."""
    with Clients() as clients:
        server = ChatServer(clients.loop, "127.0.0.1", 0)
        names = [clients.join("n" * 30 + str(number), server.address) for number in range(20)]
        greedy = socket.create_connection(server.address)
        greedy.setblocking(False)
        unsent = b'{"type":"hello","nick":"greedy"}\n' + b'{"type":"who"}\n' * 400_000
        waiting_bytes, idle_turns, flush = [0], 0, server.hub.delivery.flush

        def flush_and_note() -> list[Connection]:
            # The kernel takes it at once, most often.
            waiting_bytes.extend(each.backlog.direct_bytes for each in server._peers if each.backlog)
            return flush()

        monkeypatch.setattr(server.hub.delivery, "flush", flush_and_note)
        while idle_turns < 5:
            try:
                unsent = unsent[greedy.send(unsent) :]
                idle_turns = 0
            except BlockingIOError:
                ready, _, _ = select.select([clients.loop.fileno()], [], [], 0)
                idle_turns = 0 if ready else idle_turns + 1
            clients.loop.run_once(0.01)
        assert unsent, "the server went on reading"
        assert FULL_BYTES < max(waiting_bytes) < FULL_BYTES + 5_000
        names[0].say("still here?")
        clients.until(lambda: not names[0].pending)
        # It reads again, and is answered again.
        answers = 0

        def drain() -> bool:
            nonlocal unsent, answers
            try:
                answers += greedy.recv(1 << 20).count(b'"present"')
                unsent = unsent[greedy.send(unsent) :]
            except BlockingIOError:
                pass
            return answers > 20_000

        clients.until(drain)
        greedy.close()
        server.close("over")
        clients.until(lambda: server.idle)


def test_strangers_are_sent_away_in_time() -> None:
    """Connections: hello comes within the time that the server allows."""
    with Clients() as clients:
        server = ChatServer(clients.loop, "127.0.0.1", 0, registration_s=0.05)
        stranger = socket.create_connection(server.address)
        stranger.setblocking(False)
        received = b""

        def closed() -> bool:
            nonlocal received
            try:
                data = stranger.recv(1000)
            except BlockingIOError:
                return False
            received += data
            return not data

        clients.until(closed)
        assert json.loads(received)["code"] == "registration_timeout"
        stranger.close()
        ana = clients.join("ana", server.address)
        assert not server._strangers, "who has said hello is not sent away any more"
        assert ana.registered
        assert repr(server).startswith("<ChatServer 1 connection(s), <Hub 1 session(s)")
        assert repr(next(iter(server._peers.values()))).startswith("<Peer 127.0.0.1:")
        server.close("over")
        clients.until(lambda: server.idle and ana.closed)
        assert clients.events[ana][-1].reason == "over"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_say_bye_to_everybody(number: signal.Signals) -> None:
    """Bye: the server says why it goes; strangers are told too."""
    server = ServerProcess()
    with RawClient(server.address, "ana") as ana, RawClient(server.address) as stranger:
        ana.ask("said", type="say", text="x", id=7)
        stranger.ask("pong", type="ping")
        server.process.send_signal(number)
        bye = {"type": "bye", "reason": "The server is restarting.", "back_in_s": 1.0}
        for client, expected in ((ana, {**bye, "id": 7}), (stranger, bye)):
            assert client.until("bye") == expected
            assert client.receive() is None
    exit_code, log = server.end()
    assert exit_code == 0
    assert "ana is here from 127.0.0.1:" in log


def test_port_in_use(server: ServerProcess) -> None:
    command = [sys.executable, "-m", "chat", "serve", "--port", str(server.address[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * SECOND, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"chat-server: Cannot listen on 127.0.0.1 port {server.address[1]}: address already in use.\n"
    )


def test_ipv6() -> None:
    with server_process("::1") as server, RawClient(server.address, "ana") as ana:
        assert ana.sync() == []


def test_out_of_descriptors_is_waited_out() -> None:
    """Accepting pauses, and goes on when there are descriptors again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Clients() as clients:
        server = ChatServer(clients.loop, "127.0.0.1", 0)
        ana = clients.add("ana", server.address)
        # The next descriptor would be beyond the limit: the lowest free number is the limit itself.
        with socket.socket() as probe:
            lowest_free = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            for _ in range(10):
                clients.loop.run_once(0.01)
            assert "<ChatServer 0 connection(s)" in repr(server)
            assert not ana.registered
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        clients.until(lambda: ana.registered)
        server.close("over")
        clients.until(lambda: server.idle)


def test_without_descriptors_metrics_wait_and_names_are_known() -> None:
    """What is loaded at the first name that needs it is loaded before the server listens."""
    program = """
import resource, socket
from chat.net.loop import Loop
from chat.protocol import names
from chat.server.metrics import MetricsPort, TurnTimes
from chat.server.server import ChatServer

names.load()
loop = Loop()
port = MetricsPort(loop, ChatServer(loop, "127.0.0.1", 0), 0, TurnTimes())
socket.create_connection(("127.0.0.1", port.port))
with socket.socket() as probe:
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno(), probe.fileno()))
loop.run_once(1)
assert repr(loop).startswith("<Loop 1 socket(s)"), "it does not listen for a while"
for name in ("Zoë", "Жанна", "ا١٢", "ﾊﾞﾊﾞ", "µ"):
    try:
        names.clean_nick(name, 32)
    except names.Refusal:
        pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_close_without_clients_leaves_nothing_on_the_loop() -> None:
    loop = Loop()
    ChatServer(loop, "127.0.0.1", 0).close("over")
    assert repr(loop) == "<Loop 0 socket(s), 0 timer(s)>"
    loop.close()


def test_a_web_page_says_nothing(server: ServerProcess) -> None:
    """chat/README.md, "Connections and lines". A browser sends what a page likes, but a request line first."""
    body = '{"type":"hello","nick":"web"}\n{"type":"say","text":"from a page"}\n'
    with RawClient(server.address, "ana") as ana, RawClient(server.address) as page:
        page.sock.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert page.until("error")["code"] == "malformed"
        assert page.receive() is None
        assert ana.ask("present", type="who")["nicks"] == ["ana"]
