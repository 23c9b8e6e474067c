"""ChatClient in its three modes against a real server process, with connections that break."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from chat_helpers import Clients, RawClient, Relay, ServerProcess, server_process

from chat.client import ChatClient, Mode
from chat.errors import NotRegistered
from chat.session import (
    Closed,
    Echoed,
    Gap,
    PathDown,
    PathUp,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    Reconnecting,
    Refused,
    Resumed,
    StartedAnew,
)

MODES: list[Mode] = ["single", "standby", "redundant"]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with server_process() as server:
        yield server


@pytest.fixture
def clients() -> Iterator[Clients]:
    with Clients() as clients:
        yield clients


def cut(client: ChatClient, name: str) -> None:
    """Break one of its connections under its feet."""
    (path,) = [path for path in client._paths if path.name == name]
    assert path.transport is not None
    path.transport.sock.shutdown(socket.SHUT_RDWR)


def leave(clients: Clients, *leaving: ChatClient) -> None:
    for client in leaving:
        client.leave()
    clients.until(lambda: all(client.closed for client in leaving))


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


@pytest.mark.parametrize("name", ["primary", "secondary"])
@pytest.mark.parametrize("mode", ["standby", "redundant"])
def test_losing_one_connection_loses_nothing(server: ServerProcess, clients: Clients, mode: Mode, name: str) -> None:
    watcher = clients.join("watcher", server.address)
    client = clients.join("ana", server.address, mode=mode)
    for number in range(200):
        client.say(str(number))
        if number == 100:
            cut(client, name)
        if number % 10 == 0:
            clients.loop.run_once(0)
    clients.until(lambda: not client.pending and clients.of(client, PathDown))
    clients.until(lambda: len(client.tcp_info()) == 2)
    clients.until(lambda: len(clients.of(watcher, Received)) == 200)
    expected = [str(number) for number in range(200)]
    assert [event.text for event in clients.of(client, Echoed)] == expected
    assert [event.text for event in clients.of(watcher, Received)] == expected
    assert [event.path for event in clients.of(client, PathDown)] == [name]
    assert [event.path for event in clients.of(client, PathUp)] == ["primary", "secondary", name]
    for each in (watcher, client):
        assert not clients.of(each, PeerLeft)
        assert not clients.of(each, Gap)
    # What came back is in use: losing the other connection now loses nothing either.
    cut(client, "secondary" if name == "primary" else "primary")
    client.say("still here")
    clients.until(lambda: not client.pending)
    leave(clients, client, watcher)


@pytest.mark.parametrize("mode", ["standby", "redundant"])
def test_a_path_that_is_cut_again_and_again(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    """Over a relay that breaks the primary path while messages are under way in both directions."""
    relay = Relay(clients.loop, server.address)
    watcher = clients.join("watcher", server.address)
    client = clients.join("ana", relay.address, server.address, mode=mode)
    for number in range(300):
        client.say(f"from ana {number}")
        watcher.say(f"to ana {number}")
        clients.loop.run_once(0)
        if number % 40 == 20:
            relay.cut()
    clients.until(lambda: not client.pending and not watcher.pending)
    clients.until(lambda: len(clients.of(client, Received)) == len(clients.of(watcher, Received)) == 300)
    assert [event.text for event in clients.of(client, Received)] == [f"to ana {number}" for number in range(300)]
    assert [event.text for event in clients.of(watcher, Received)] == [f"from ana {number}" for number in range(300)]
    assert not clients.of(watcher, PeerLeft)
    leave(clients, client, watcher)
    relay.close()


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


@pytest.mark.parametrize(
    ("host", "options", "reason"),
    [
        ("no such host", {}, "Cannot find the host no such host: name or service not known."),
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
    assert client._paths[0].transport is not None
    sock = client._paths[0].transport.sock
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
    with server_process() as server:
        client = clients.join("ana", server.address, mode=mode)
        server.process.terminate()
        clients.until(lambda: client.closed)
        assert clients.events[client][-1] == Closed("The server is shutting down.", ())
        assert not clients.of(client, PathDown)


@pytest.mark.parametrize("mode", MODES)
def test_the_server_is_killed(clients: Clients, mode: Mode) -> None:
    with server_process() as server:
        client = clients.join("ana", server.address, mode=mode, retry_s=0.3)
        server.process.send_signal(signal.SIGSTOP)
        lost = client.say("into the void")
        server.process.kill()
        clients.until(lambda: client.closed)
        server.process.communicate()
    closed = clients.events[client][-1]
    assert isinstance(closed, Closed)
    assert closed.lost == (lost,)
    assert closed.reason.startswith(("The connection broke: ", "Cannot connect to "))
    assert closed.reason.endswith(" Nothing could be reached again for 0.3 s.")
    assert len(clients.of(client, Reconnecting)) == 1


@pytest.mark.parametrize("mode", MODES)
def test_both_connections_break_and_the_session_goes_on(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    relay = Relay(clients.loop, server.address)
    watcher = clients.join("watcher", server.address)
    client = clients.join("ana", relay.address, mode=mode)
    for number in range(300):
        client.say(f"from ana {number}")
        watcher.say(f"to ana {number}")
        clients.loop.run_once(0)
        if number % 100 == 50:
            relay.reset()
            clients.until(lambda: client.away)
            assert client.registered
            with pytest.raises(NotRegistered, match="no connection just now"):
                client.who()
        if number % 100 == 99:
            clients.until(lambda: not client.away)
    clients.until(lambda: not client.pending and not watcher.pending and not client.away)
    clients.until(lambda: len(clients.of(client, Received)) == len(clients.of(watcher, Received)) == 300)
    assert [event.text for event in clients.of(client, Received)] == [f"to ana {number}" for number in range(300)]
    assert [event.text for event in clients.of(watcher, Received)] == [f"from ana {number}" for number in range(300)]
    assert [event.id for event in clients.of(client, Echoed)] == [*range(1, 301)]
    assert len(clients.of(client, Reconnecting)) == len(clients.of(client, Resumed)) == client.resumptions == 3
    assert not clients.of(watcher, PeerLeft)
    leave(clients, client, watcher)
    relay.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_session_that_is_gone_begins_anew(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    """Connections that end in order end the session; what was under way then is in doubt."""
    relay = Relay(clients.loop, server.address)
    watcher = clients.join("watcher", server.address)
    client = clients.join("Ana", relay.address, mode=mode)
    relay.cut()
    number = client.say("into the void")
    clients.until(lambda: clients.of(client, StartedAnew))
    assert clients.of(client, StartedAnew) == [StartedAnew("Ana", (number,))]
    assert client.say("again") == number + 1
    clients.until(lambda: not client.pending)
    clients.until(lambda: clients.of(watcher, Received))
    assert [event.text for event in clients.of(watcher, Received)] == ["again"]
    assert [type(event) for event in clients.events[watcher]].count(PeerLeft) == 1
    leave(clients, client, watcher)
    relay.close()


def test_the_server_restarts(clients: Clients) -> None:
    with server_process() as server:
        client = clients.join("ana", server.address, mode="redundant")
        server.process.kill()
        server.process.communicate()
    with server_process(port=server.address[1]):
        clients.until(lambda: clients.of(client, StartedAnew) and len(client.tcp_info()) == 2)
        client.say("here again")
        clients.until(lambda: not client.pending)
        leave(clients, client)


def test_hello_is_said_again_if_the_answer_was_lost(server: ServerProcess, clients: Clients) -> None:
    """Sessions: with a key, the same hello is welcomed again."""
    relay = Relay(clients.loop, server.address)
    with RawClient(server.address, "watcher") as watcher:
        client = clients.add("ana", relay.address, server.address, mode="standby")
        while not any(message["type"] == "joined" for message in watcher.sync()):
            clients.loop.run_once(0.01)
            relay.drop_answers = True
        relay.reset()
        clients.until(lambda: client.registered)
        assert [event.path for event in clients.of(client, PathUp)] == ["secondary"]
    client.close()
    relay.close()


def test_standby_moves_when_the_active_connection_is_silent(server: ServerProcess, clients: Clients) -> None:
    relay = Relay(clients.loop, server.address)
    client = clients.join("ana", relay.address, server.address, mode="standby")
    relay.drop_answers = True
    client.say("is anybody there?")
    clients.until(lambda: not client.pending)
    assert client.takeovers == 1
    assert client.resumptions == 0
    assert clients.of(client, PathDown)[0].reason.startswith("No answer for 1.")
    client.close()
    relay.close()


@pytest.mark.parametrize("mode", MODES)
def test_reconnect(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    client = clients.join("ana", server.address, mode=mode)
    client.say("before")
    client.reconnect()
    client.say("between")
    clients.until(lambda: not client.pending and clients.of(client, Resumed))
    assert [event.text for event in clients.of(client, Echoed)] == ["before", "between"]
    leave(clients, client)
    with pytest.raises(NotRegistered):
        client.reconnect()


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_is_dead_silent_is_given_up(
    server: ServerProcess, clients: Clients, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.path.QUIET_NS", 0)
    monkeypatch.setattr("chat.path.CHECK_S", 0.02)
    monkeypatch.setattr("chat.path.SILENT_NS", 200_000_000)
    relay = Relay(clients.loop, server.address)
    client = clients.join("ana", relay.address, mode=mode)
    relay.drop_answers = True
    clients.until(lambda: client.away)
    relay.drop_answers = False
    clients.until(lambda: clients.of(client, Resumed))
    leave(clients, client)
    relay.close()


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
    monkeypatch.setattr("chat.client.LEAVE_S", 0.05)
    with server_process() as server:
        client = clients.join("ana", server.address)
        server.process.send_signal(signal.SIGSTOP)
        client.leave()
        clients.until(lambda: client.closed)
        server.process.send_signal(signal.SIGCONT)


def test_no_answer(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.path.OPEN_S", 0.05)
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
    assert " 0 B unsent" not in repr(client._paths[0])
    clients.until(lambda: not client.pending)
    assert len(clients.of(client, Echoed)) == 2000
    clients.until(lambda: repr(client._paths[0]) == "<Path primary up, 0 B unsent>")
    leave(clients, client)


def test_ipv6(clients: Clients) -> None:
    with server_process("::1") as server:
        client = clients.join("ana", server.address, mode="redundant")
        leave(clients, client)


def test_a_killed_client_is_one_left(server: ServerProcess) -> None:
    """SIGKILL: the kernel closes both connections; the others see one `left`."""
    program = (
        "import sys; from chat.client import ChatClient; from chat.loop import Loop; from chat.session import PathUp\n"
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
