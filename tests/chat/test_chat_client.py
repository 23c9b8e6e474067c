"""ChatClient in its three modes against a real server process."""

import itertools
import signal
import socket
import subprocess
import sys

import pytest
from chat_helpers import MODES, Clients, RawClient, Relay, ServerProcess, cut, leave, server_process

from chat.client.client import ChatClient, Mode
from chat.client.events import (
    Closed,
    Echoed,
    EchoMissed,
    PathDown,
    PathUp,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    Refused,
    Registered,
)
from chat.net.loop import Loop
from chat.protocol.errors import NotRegistered
from chat.protocol.limits import Limits
from chat.protocol.messages import Said, Welcome
from chat.protocol.wire import encode

pytestmark = pytest.mark.realtime("chat")


@pytest.mark.parametrize("mode", MODES)
def test_contract(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    """What every mode does alike."""
    watcher = clients.join("watcher", server.address)
    client = clients.add("Ana", server.address, mode=mode)
    assert not client.registered
    with pytest.raises(NotRegistered):
        client.say("too early")
    wanted = ["primary"] if mode == "single" else ["primary", "secondary"]
    clients.until(lambda: list(client.tcp_info()) == wanted)
    assert [event.path for event in clients.of(client, PathUp)] == wanted

    intended_ns = clients.loop.now_ns() - 50_000_000
    assert client.say("héllo", intended_ns=intended_ns) == 1
    assert client.tell("WATCHER", "psst") == 2
    assert client.tell("nobody", "x") == 3
    client.who()
    clients.until(lambda: not client.pending and clients.of(client, Present) and clients.of(watcher, Received))
    echoes = sorted(clients.of(client, Echoed), key=lambda echo: echo.id)
    assert [(echo.id, echo.kind, echo.text_bytes) for echo in echoes] == [(1, "say", 6), (2, "tell", 4)]
    for echo in echoes:
        assert echo.intended_ns <= echo.sent_ns <= echo.received_ns <= echo.seen_ns
    assert echoes[0].response_time_ns >= echoes[0].service_time_ns + 49_000_000
    assert [event.code for event in clients.of(client, Refused)] == ["no_such_nick"]
    assert sorted(clients.of(client, Present)[0].nicks) == ["Ana", "watcher"]
    clients.until(lambda: len(clients.of(watcher, Received)) >= 2)
    assert {event.text for event in clients.of(watcher, Received)} == {"psst", "héllo"}
    client.say("alone")
    clients.until(lambda: not client.pending)
    assert clients.of(client, Echoed)[-1].exact == sys.platform.startswith("linux"), "a line that comes alone"
    assert repr(client).startswith(f"<ChatClient {mode}, <ClientSession Ana registered, 0 pending, ")

    leave(clients, client)
    assert clients.events[client][-1] == Closed("left", ())
    assert len(clients.of(client, Closed)) == 1
    clients.until(lambda: clients.of(watcher, PeerLeft))
    assert clients.of(watcher, PeerJoined) == [PeerJoined("Ana")]
    assert clients.of(watcher, PeerLeft) == [PeerLeft("Ana", "said bye")]
    leave(clients, watcher)
    with pytest.raises(NotRegistered):
        client.say("too late")
    with pytest.raises(NotRegistered):
        client.who()


def test_events_say_where_in_the_stream_their_line_ends(clients: Clients) -> None:
    """However the stream is cut into reads: by these offsets a packet capture is joined with what was received."""
    welcome = encode(Welcome("ana", "token", {"lobby": 0, "inbox": 0}, Limits()))
    said = [encode(Said("lobby", number, "ben", "é" * number)) for number in range(1, 9)]
    stream = welcome + b"".join(said)
    ends = list(itertools.accumulate(map(len, said), initial=len(welcome)))[1:]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = clients.add("ana", listener.getsockname())
        peer, address = listener.accept()
        with peer:
            for begin, end in itertools.pairwise([0, ends[0], ends[2] - 3, ends[3] + 1, ends[5], len(stream)]):
                peer.sendall(stream[begin:end])
                whole = sum(line_end <= end for line_end in ends)
                clients.until(lambda whole=whole: len(clients.of(client, Received)) == whole)
            assert [event.end_byte for event in clients.of(client, Received)] == ends
            (status,) = client.connections()
            assert status.local_port == address[1]
            client.close()


def test_redundant_counts_second_copies(server: ServerProcess, clients: Clients) -> None:
    client = clients.join("ana", server.address, mode="redundant")
    for _ in range(10):
        client.say("x")
    clients.until(lambda: client.duplicates == 10 and not client.pending)
    assert len(clients.of(client, Echoed)) == 10
    leave(clients, client)


def test_standby_receives_on_one_connection_only(server: ServerProcess, clients: Clients) -> None:
    client = clients.join("ana", server.address, mode="standby")
    client.say("x")
    clients.until(lambda: not client.pending)
    assert client.duplicates == 0
    assert {event.path for event in clients.of(client, Echoed)} == {"primary"}
    leave(clients, client)


def test_hello_goes_over_the_secondary_if_the_primary_cannot_be_reached(
    server: ServerProcess, clients: Clients
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = closed.getsockname()
    client = clients.add("ana", nowhere, server.address, mode="redundant")
    clients.until(lambda: client.registered and clients.of(client, PathDown))
    assert [event.path for event in clients.of(client, PathUp)] == ["secondary"]
    (down,) = clients.of(client, PathDown)
    assert down.reason == f"Cannot connect to 127.0.0.1 port {nowhere[1]}: connection refused."
    leave(clients, client)


@pytest.mark.parametrize("mode", MODES)
def test_nobody_listens(clients: Clients, mode: Mode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = closed.getsockname()
    client = clients.add("ana", nowhere, mode=mode)
    clients.until(lambda: client.closed)
    reason = f"Cannot connect to 127.0.0.1 port {nowhere[1]}: connection refused."
    assert clients.events[client] == [Closed(reason, ())]


def test_a_mode_that_there_is_not() -> None:
    loop = Loop()
    with pytest.raises(ValueError, match="one of single, standby, redundant; got 'redundent'"):
        ChatClient(loop, "ana", ("127.0.0.1", 1), mode="redundent", on_event=print)  # type: ignore[arg-type]
    loop.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_client_connects_once(clients: Clients, server: ServerProcess, mode: Mode) -> None:
    client = clients.add("ana", server.address, mode=mode)
    with pytest.raises(RuntimeError, match="connects once"):
        client.connect()
    clients.until(lambda: client.registered)
    client.leave()
    clients.until(lambda: client.closed)
    with pytest.raises(RuntimeError, match="connects once"):
        client.connect()


@pytest.mark.parametrize(
    ("host", "options", "reason"),
    [
        ("no such host", {}, "Cannot find the host no such host: name or service not known."),
        ("two..dots", {}, "Cannot find the host two..dots: no host is called so."),
        (
            "127.0.0.1",
            {"congestion": "nonsense"},
            "TCP congestion control nonsense cannot be used here: no such file or directory.",
        ),
    ],
)
def test_addresses_that_cannot_be_used(clients: Clients, host: str, options: dict[str, str], reason: str) -> None:
    client = clients.add("ana", (host, 9), **options)
    assert not clients.events[client], "events come from the loop"
    clients.until(lambda: client.closed)
    assert clients.events[client] == [Closed(reason, ())]


def test_congestion_control(server: ServerProcess, clients: Clients) -> None:
    client = clients.join("ana", server.address, congestion="reno")
    assert client._paths.connections[0].transport is not None
    sock = client._paths.connections[0].transport.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
    leave(clients, client)


@pytest.mark.parametrize("mode", MODES)
def test_nick_in_use(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    first = clients.join("ana", server.address)
    second = clients.add("ANA", server.address, mode=mode)
    clients.until(lambda: second.closed)
    reason = "Somebody here is already called ana."
    assert clients.events[second] == [Refused(None, "nick_in_use", reason), Closed(reason, ())]
    leave(clients, first)


@pytest.mark.parametrize("mode", MODES)
def test_the_server_says_bye(clients: Clients, mode: Mode) -> None:
    with server_process("127.0.0.1", "--back-in", "never") as server:
        client = clients.join("ana", server.address, mode=mode)
        server.process.terminate()
        clients.until(lambda: client.closed)
        assert clients.events[client][-1] == Closed("The server is shutting down.", ())
        assert not clients.of(client, PathDown)


def test_close_frees_everything_at_once(server: ServerProcess, clients: Clients) -> None:
    watcher = clients.join("watcher", server.address)
    before = repr(clients.loop).partition(",")[0]
    client = clients.join("ana", server.address, mode="redundant")
    number = client.say("x")
    client.close()
    client.close()
    client.leave()
    assert clients.of(client, Closed) == [Closed("closed", (number,))]
    assert client.tcp_info() == {}
    clients.until(lambda: clients.of(watcher, PeerLeft))
    assert repr(clients.loop).partition(",")[0] == before
    leave(clients, watcher)


def test_leave_before_there_is_a_session(server: ServerProcess, clients: Clients) -> None:
    client = clients.add("ana", server.address)
    client.leave()
    client.leave()
    assert not client.closed
    clients.until(lambda: client.closed)
    assert clients.events[client] == [Closed("left", ())]


def test_leave_does_not_wait_for_ever(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.client.paths.LEAVE_S", 0.05)
    with server_process() as server:
        client = clients.join("ana", server.address)
        server.process.send_signal(signal.SIGSTOP)
        client.leave()
        clients.until(lambda: client.closed)
        server.process.send_signal(signal.SIGCONT)


def test_no_answer(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.client.connection.OPEN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = clients.add("ana", silent.getsockname())
        clients.until(lambda: client.closed)
        assert clients.events[client] == [Closed(f"No answer from 127.0.0.1 port {silent.getsockname()[1]}.", ())]


def test_a_server_that_speaks_something_else(clients: Clients) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        client = clients.add("ana", other.getsockname())
        clients.loop.run_once(1)
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")
            clients.until(lambda: client.closed)
    assert clients.events[client][-1].reason.startswith("The server cannot be understood: The line is not a message")


def test_more_than_the_kernel_takes_is_sent_as_it_takes_more(server: ServerProcess, clients: Clients) -> None:
    client = clients.join("ana", server.address, mode="redundant")
    for _ in range(2000):
        client.say("x" * 8000)
    assert " 0 B unsent" not in repr(client._paths.connections[0])
    clients.until(lambda: not client.pending)
    # The lobby holds half of it: on a busy machine both connections may fall behind so far that they are told of gaps.
    answered = [event.id for event in clients.events[client] if isinstance(event, Echoed | EchoMissed)]
    assert sorted(answered) == [*range(1, 2001)]
    clients.until(lambda: repr(client._paths.connections[0]) == "<Connection primary ACTIVE, 0 B unsent>")
    leave(clients, client)


def test_ipv6(clients: Clients) -> None:
    with server_process("::1") as server:
        client = clients.join("ana", server.address, mode="redundant")
        leave(clients, client)


def test_a_killed_client_is_one_left(server: ServerProcess) -> None:
    """SIGKILL: the kernel closes both connections; the others see one `left`."""
    program = (
        "import sys; from chat import ChatClient, Loop; from chat.client.events import PathUp\n"
        "loop = Loop()\n"
        "def on_event(event):\n"
        "    if event == PathUp('secondary'): print('up', flush=True)\n"
        "ChatClient(loop, 'ana', ('127.0.0.1', int(sys.argv[1])), mode='redundant', on_event=on_event).connect()\n"
        "loop.run()\n"
    )
    with RawClient(server.address, "ben") as ben:
        command = [sys.executable, "-c", program, str(server.address[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.kill()
        assert ben.until("left")["nick"] == "ana"
        assert [message for message in ben.sync() if message["type"] == "left"] == []


@pytest.mark.parametrize("mode", MODES)
def test_what_was_said_last_is_heard(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    """The way of the connection that carries it is the slower one."""
    slow = Relay(clients.loop, server.address)
    ana = clients.join("ana", slow.address, server.address, mode=mode)
    ben = clients.join("ben", server.address)
    slow.hold(True)
    ana.say("my last word")
    ana.leave()
    clients.until(lambda: mode != "redundant" or clients.of(ben, PeerLeft))
    slow.hold(False)
    clients.until(lambda: ana.closed and clients.of(ben, PeerLeft))
    assert [event.text for event in clients.of(ben, Received)] == ["my last word"]
    leave(clients, ben)
    slow.close()


@pytest.mark.parametrize("event", [Registered, PathDown])
def test_nothing_is_told_after_the_end(server: ServerProcess, clients: Clients, event: type) -> None:
    """The program closes the client as soon as it hears of this."""
    told: list[object] = []

    def note(heard: object) -> None:
        told.append(heard)
        if isinstance(heard, event):
            ana.close()

    ana = ChatClient(clients.loop, "ana", server.address, on_event=note)
    clients.clients.append(ana)
    ana.connect()
    clients.until(lambda: ana.registered or ana.closed)
    if not ana.closed:
        cut(ana, "primary")
    clients.until(lambda: ana.closed)
    assert isinstance(told[-1], Closed)
    assert not ana.away
