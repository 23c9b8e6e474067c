"""ChatClient when connections break, fall silent, or the server goes: the session goes on."""

import itertools
import signal

import pytest
from chat_helpers import MODES, Clients, RawClient, Relay, ServerProcess, cut, leave, server_process
from hostile_helpers import WELCOME, liar

from chat.client.client import Mode
from chat.client.events import (
    Closed,
    Echoed,
    Gap,
    PathDown,
    PathUp,
    PeerLeft,
    Received,
    Reconnecting,
    Refused,
    Resumed,
    StartedAnew,
)
from chat.protocol.errors import NotRegistered

pytestmark = pytest.mark.realtime("chat")


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


@pytest.mark.parametrize("mode", MODES)
def test_the_server_is_killed(clients: Clients, mode: Mode) -> None:
    with server_process() as server:
        client = clients.join("ana", server.address, mode=mode, retry_s=0.3)
        server.process.send_signal(signal.SIGSTOP)
        lost = client.say("into the void")
        server.process.kill()
        clients.until(lambda: client.closed)
        server.end()
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
    assert clients.of(client, StartedAnew) == [StartedAnew("Ana", (number,), missed=False)]
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
        server.end()
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
    monkeypatch.setattr("chat.client.connection.QUIET_NS", 0)
    monkeypatch.setattr("chat.client.connection.CHECK_S", 0.02)
    monkeypatch.setattr("chat.client.connection.SILENT_NS", 200_000_000)
    relay = Relay(clients.loop, server.address)
    client = clients.join("ana", relay.address, mode=mode)
    relay.drop_answers = True
    clients.until(lambda: client.away)
    relay.drop_answers = False
    clients.until(lambda: clients.of(client, Resumed))
    leave(clients, client)
    relay.close()


@pytest.mark.parametrize("mode", ["single", "standby"])
def test_what_the_server_has_heard_before_is_no_open_question(
    server: ServerProcess, clients: Clients, mode: Mode
) -> None:
    """The server says nothing to what comes a second time; the connection is not taken for dead."""
    relay = Relay(clients.loop, server.address)
    ana = clients.join("ana", relay.address, server.address, mode=mode)
    ben = clients.join("ben", server.address)
    relay.hold_answers(True)
    ana.say("hello")
    clients.until(lambda: clients.of(ben, Received))
    relay.reset()
    clients.until(lambda: not ana.pending)
    (carrying,) = [each for each in ana._paths.connections if each.carries]
    clients.until(lambda: not carrying._pulse.silent_ns(clients.loop.now_ns()), 5)
    assert len(clients.of(ana, PathDown)) == 1
    leave(clients, ana, ben)
    relay.close()


def test_another_server_on_the_second_path_ends_no_session(server: ServerProcess, clients: Clients) -> None:
    with server_process() as other:
        ana = clients.add("ana", server.address, other.address, mode="redundant")
        clients.until(lambda: len([event for event in clients.of(ana, Refused) if event.code == "bad_token"]) > 1)
        assert ana.registered
        assert not clients.of(ana, StartedAnew)
        leave(clients, ana)


def test_who_is_asked_to_wait_comes_back_later(clients: Clients) -> None:
    """Others behind our address have guessed too often."""
    refusal = {"type": "refused", "code": "too_many_tries", "reason": "Wait."}
    answers = itertools.chain([WELCOME], itertools.repeat(refusal))
    with liar(lambda _first: [next(answers)]) as address:
        ana = clients.add("ana", address)
        clients.until(lambda: ana.registered)
        cut(ana, "primary")
        clients.until(lambda: len(clients.of(ana, Refused)) == 2)
        assert ana.registered
        assert ana.away
