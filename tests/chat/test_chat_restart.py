"""A server that restarts under two clients: each message is shown once, in order, or said not to have been sent.

In an orderly way and by SIGKILL, with and without a journal, in every mode; text is said before, while there is no
server, and after.
"""

import signal
from collections import Counter
from pathlib import Path

import pytest
from chat_helpers import MODES, Clients, RawClient, leave, server_process
from terminal_helpers import TerminalClient

from chat.client.client import MAX_WAITING, ChatClient, Mode
from chat.client.events import Closed, Echoed, Entered, Event, NotSent, Received, Reconnecting, StartedAnew
from chat.protocol.errors import TooMuchUnderWay

pytestmark = pytest.mark.realtime("chat")


def shown(events: list[Event]) -> list[str]:
    """What a person reads who sees these events."""
    return [event.text for event in events if isinstance(event, Echoed | Received)]


def not_sent(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, NotSent)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("has_journal", [False, True])
def test_each_message_once_or_said_not_to_be_sent(
    clients: Clients, tmp_path: Path, mode: Mode, number: signal.Signals, has_journal: bool
) -> None:
    options = ["127.0.0.1", "--back-in", "0"]
    if has_journal:
        options += ["--journal", str(tmp_path / "journal")]
    said: dict[ChatClient, list[str]] = {}

    def say(client: ChatClient, room: str, *words: str) -> None:
        for word in words:
            text = f"{client.nick} {word} in {room}"
            said[client].append(text)
            client.say(text, room=room)

    def echoes(client: ChatClient) -> list[str]:
        return [event.text for event in clients.of(client, Echoed)]

    with server_process(*options) as server:
        ana = clients.join("ana", server.address, mode=mode)
        ben = clients.join("ben", server.address, mode=mode)
        for client in (ana, ben):
            said[client] = []
            client.join("tea")
        clients.until(lambda: all(clients.of(client, Entered) for client in said))
        for client in (ana, ben):
            say(client, "lobby", "before")
            say(client, "tea", "before")
        clients.until(lambda: all(not client.pending for client in said))
        # Under way while it is stopped: perhaps accepted, perhaps not.
        for client in said:
            say(client, "tea", "just before")
        clients.loop.run_once(0)
        server.process.send_signal(number)
        clients.until(lambda: ana.away and ben.away)
        server.end()
        for client in said:
            say(client, "tea", "while away 1", "while away 2")
            say(client, "lobby", "while away 3")
            assert client.registered
            assert client.waiting >= 3
    with server_process(*options, port=server.address[1]):
        clients.until(lambda: all(clients.of(client, StartedAnew) for client in said))
        for client in said:
            say(client, "tea", "after")
        clients.until(lambda: all(not client.pending for client in said))
        if has_journal:  # then nobody misses anything that was not refused
            clients.until(
                lambda: all(set(echoes(ana) + echoes(ben)) == {*shown(clients.events[each])} for each in said)
            )
        leave(clients, ana, ben)
    for client, own in said.items():
        events = clients.events[client]
        echoed = echoes(client)
        assert Counter(echoed + not_sent(events)) == Counter(own), "each ends in one way"
        assert not [text for text, count in Counter(shown(events)).items() if count > 1], "doubled"
        surely = [text for text in own if "just before" not in text]
        for room in ("tea", "lobby"):
            in_room = [text for text in surely if text.endswith(room)]
            assert [text for text in echoed if text in in_room] == in_room, "all, and in order"
        if number != signal.SIGKILL:
            assert not not_sent(events), "an orderly restart leaves no doubt"
        if has_journal:
            assert all(event.is_certain for event in events if isinstance(event, NotSent))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_name_and_what_is_for_it_wait_for_its_owner(clients: Clients, tmp_path: Path, number: signal.Signals) -> None:
    """Mallory, who does not wait until the server is back for all, is there first."""
    options = ["127.0.0.1", "--back-in", "0", "--journal", str(tmp_path / "journal")]
    with server_process(*options) as server:
        ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
        server.process.send_signal(number)
        clients.until(lambda: ana.away and ben.away)
        server.end()
        ben.tell("ana", "the door code is 4711")
    with server_process(*options, port=server.address[1]) as server, RawClient(server.address) as mallory:
        for nick in ("ana", "аna"):  # the second one begins with a Cyrillic letter
            mallory.send(type="hello", nick=nick)
            assert mallory.until_any("welcome", "refused").get("code") == "nick_in_use"
        mallory.ask("welcome", type="hello", nick="mallory")
        clients.until(lambda: clients.of(ana, StartedAnew) and not ben.pending)
        if clients.of(ben, Echoed):  # else he was back before her, and was told so
            clients.until(lambda: shown(clients.events[ana]) == ["the door code is 4711"])
        assert not [line for line in mallory.sync() if line["type"] == "told"]
        leave(clients, ana, ben)


def test_without_a_journal_a_private_message_does_not_wait_for_whoever_has_the_name(clients: Clients) -> None:
    with server_process("127.0.0.1", "--back-in", "0") as server:
        ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
        server.process.send_signal(signal.SIGTERM)
        clients.until(lambda: ana.away and ben.away)
        server.end()
        ben.tell("ana", "the door code is 4711")
        ben.say("hello")
        ana.close()
    with server_process(port=server.address[1]) as server, RawClient(server.address, "ana") as mallory:
        clients.until(lambda: clients.of(ben, Echoed))
        assert not_sent(clients.events[ben]) == ["the door code is 4711"]
        assert all(event.is_certain for event in clients.of(ben, NotSent))
        assert not [line for line in mallory.sync() if line["type"] == "told"]
        leave(clients, ben)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_said_while_nobody_is_there_is_bounded_and_ends_as_not_sent(clients: Clients, mode: Mode) -> None:
    with server_process() as server:
        ana = clients.join("ana", server.address, mode=mode, retry_s=0.5)
        server.process.kill()
        server.end()
    clients.until(lambda: ana.away)
    for number in range(MAX_WAITING):
        ana.say(f"{number}")
    with pytest.raises(TooMuchUnderWay, match="wait for a connection; no more are kept"):
        ana.say("one more")
    clients.until(lambda: ana.closed)
    *_, last = clients.events[ana]
    assert isinstance(last, Closed)
    assert len(last.lost) == MAX_WAITING
    assert [event.text for event in clients.of(ana, NotSent)] == [f"{number}" for number in range(MAX_WAITING)]
    assert all(event.is_certain for event in clients.of(ana, NotSent))


def test_a_client_waits_as_long_as_the_server_said(clients: Clients) -> None:
    """Its own patience counts from then on."""
    with server_process("127.0.0.1", "--back-in", "3600") as server:
        ana = clients.join("ana", server.address, retry_s=0.01)
        server.process.send_signal(signal.SIGTERM)
        clients.until(lambda: ana.away)
    (reconnecting,) = clients.of(ana, Reconnecting)
    assert reconnecting.reason == "The server is restarting."
    assert 3590 < reconnecting.back_in_s <= 3600
    for _ in range(5):
        clients.loop.run_once(0.02)
    assert not ana.closed
    ana.close()
    assert clients.of(ana, Closed) == [Closed("closed", ())]


@pytest.mark.parametrize("mode", MODES)
def test_a_person_sees_what_became_of_each_line(tmp_path: Path, mode: Mode) -> None:
    """At a terminal: what is typed while there is no server waits in sight, and ends as a message or as not sent."""
    options = ["127.0.0.1", "--journal", str(tmp_path / "journal")]
    with server_process(*options) as server:
        ana = TerminalClient("ana", server, "--no-colour", "--mode", mode)
        ana.type("before\r")
        ana.until("ana: before  (")
        server.process.kill()
        server.end()
    ana.until("! No connection; reconnecting. What you say is kept, and sent then.")
    ana.type("during\r")
    ana.until("… waiting: during")
    with server_process(*options, port=server.address[1]) as server:
        ana.until("ana: during  (")
        ana.type("after\r")
        ana.until("ana: after  (")
        server.process.kill()
        server.end()
    ana.until("No connection; reconnecting", after="ana: after")
    ana.type("never\r")
    ana.until("… waiting: never")
    ana.type("/quit\r")
    ana.until("! not sent: never")
    assert ana.end() == 0
    for text in ("before", "during", "after"):
        assert ana.screen.count(f"ana: {text}  (") == 1
    assert "perhaps" not in ana.screen
