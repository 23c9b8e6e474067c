"""Rooms: who is in them, what is said in them, and what becomes of it when connections break."""

import pytest
from chat_helpers import MODES, Clients, Relay, ServerProcess, leave, server_process
from hub_helpers import Hall

from chat.client.client import Mode
from chat.client.events import (
    Departed,
    Echoed,
    EchoMissed,
    Entered,
    Gap,
    PathUp,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    Refused,
    Renamed,
    RoomList,
    StartedAnew,
)
from chat.protocol import messages
from chat.protocol.limits import Limits
from chat.protocol.messages import Attach, Join, Leave, ListRooms, Say, Settle, Who
from chat.server.members import Connection
from chat.server.rooms import Rooms
from chat.server.server import ChatServer


@pytest.fixture
def hall() -> Hall:
    return Hall(rooms=Rooms(name_chars=32, room_lines=3, max_rooms=2), limits=Limits(rooms=1))


def test_a_room_is_a_log_of_its_own(hall: Hall) -> None:
    ana, ben, cem = (hall.join(nick) for nick in ("ana", "ben", "cem"))
    for connection in (ana, ben):
        hall.take(connection)
    hall.hub.receive(ana, Join("tea", 1))
    hall.hub.receive(ben, Join("TEA", 7))
    for connection in (ana, ben):
        hall.hub.receive(connection, Say("hot", room="Tea"))
    joined = {"type": "joined", "log": "tea", "seq": 2, "nick": "ben"}
    said = [
        {"type": "said", "log": "tea", "seq": seq, "from": nick, "text": "hot"}
        for seq, nick in ((3, "ana"), (4, "ben"))
    ]
    found = hall.take(ana)
    assert found[0] == {"type": "member", "cursors": {"tea": 1}, "id": 1}
    assert found[-3:] == [joined, *said]
    assert hall.take(ben) == [{"type": "member", "cursors": {"tea": 2}, "id": 7}, *said]
    assert hall.take(cem) == []


def test_who_and_rooms(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.take(ana)
    hall.hub.receive(ben, Join("tea"))
    for question in (Who("Tea"), Who(), Who("tin"), ListRooms()):
        hall.hub.receive(ana, question)
    present, all_present, rooms, refused = hall.take(ana)
    assert present == {"type": "present", "nicks": ["ben"], "room": "tea"}
    assert all_present == {"type": "present", "nicks": ["ana", "ben"]}
    assert rooms == {"type": "rooms", "rooms": {"lobby": 2, "tea": 1}}
    assert (refused["code"], refused["reason"]) == ("no_such_room", "There is no room tin.")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Join("", 1), "bad_room"),
        (Join("a b", 1), "bad_room"),
        (Join("Inbox", 1), "bad_room"),
        (Join("x" * 33, 1), "bad_room"),
        (Say("x", 1, "tea"), "not_in_room"),
        (Say("x", 1, "inbox"), "not_in_room"),
        (Leave("tea", 1), "not_in_room"),
        (Leave("Lobby", 1), "lobby_is_for_all"),
    ],
)
def test_refusals(message: messages.Up, code: str, hall: Hall) -> None:
    ana = hall.join("ana")
    hall.hub.receive(ana, message)
    (refused,) = hall.take(ana)
    assert (refused["code"], refused["id"]) == (code, 1)


def test_rooms_are_bounded(hall: Hall) -> None:
    people = [hall.join(nick) for nick in ("ana", "ben", "cem")]
    hall.hub.receive(people[0], Join("one"))
    hall.hub.receive(people[0], Join("two"))
    assert "You are in 1 rooms already." in reasons(hall, people[0])
    hall.hub.receive(people[1], Join("two"))
    hall.hub.receive(people[2], Join("three"))
    assert "There are 2 rooms already." in reasons(hall, people[2])


def test_one_address_opens_no_more_rooms_than_connections() -> None:
    """One stranger with 64 connections took all 1,024 that there may be."""
    hall = Hall(limits=Limits(connections_per_address=2))
    taker, helper, other = (hall.join(nick) for nick in ("ana", "ben", "cem"))
    taker.origin = helper.origin = "here"
    for name in ("one", "two", "three"):
        hall.hub.receive(taker, Join(name))
    assert "There are 2 rooms already that were opened from your address." in reasons(hall, taker)
    hall.hub.receive(helper, Join("one"))
    hall.hub.receive(helper, Join("four"))
    hall.hub.receive(other, Join("three"))
    assert [room.log.name for room in hall.hub.rooms] == ["lobby", "one", "two", "three"]
    hall.hub.receive(taker, Leave("two"))
    hall.hub.receive(helper, Join("four"))
    assert [room.log.name for room in hall.hub.rooms] == ["lobby", "one", "three", "four"]


def reasons(hall: Hall, connection: Connection) -> list[str]:
    return [line.get("reason", "") for line in hall.take(connection)]


def test_coming_twice_and_to_the_lobby_changes_nothing(hall: Hall) -> None:
    ana = hall.join("ana")
    for message in (Join("lobby", 1), Join("tea", 2), Join("tea", 3)):
        hall.hub.receive(ana, message)
    assert hall.take(ana) == [
        {"type": "member", "cursors": {}, "id": 1},
        {"type": "member", "cursors": {"tea": 1}, "id": 2},
        {"type": "member", "cursors": {"tea": 1}, "id": 3},
    ]


def test_what_was_said_before_one_left_is_still_sent(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    for connection in (ana, ben):
        hall.hub.receive(connection, Join("tea"))
        hall.take(connection)
    hall.take(ana)
    for message in (Say("one", 1, "tea"), Leave("tea", 2), Say("two", 3, "tea")):
        hall.hub.receive(ana, message)
    hall.hub.receive(ben, Say("three", 1, "tea"))
    assert hall.kinds(ana) == ["said", "member", "refused"]
    said, left, more = hall.take(ben)
    assert (said["text"], left["nick"], left["log"], left["reason"], more["text"]) == (
        "one",
        "ana",
        "tea",
        "left the room",
        "three",
    )


def test_an_empty_room_is_forgotten_but_its_numbers_go_on(hall: Hall) -> None:
    ana = hall.join("ana")
    for message in (
        Join("tea"),
        Say("x", room="tea"),
        Leave("tea"),
        ListRooms(),
        Join("tin"),
        Leave("tin"),
        Join("Tea"),
    ):
        hall.hub.receive(ana, message)
    found = hall.take(ana)
    assert {"type": "rooms", "rooms": {"lobby": 1}} in found
    assert found[-1] == {"type": "member", "cursors": {"Tea": 4}}


def test_who_ends_leaves_all_rooms(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    for connection in (ana, ben):
        hall.hub.receive(connection, Join("tea"))
    hall.take(ben)
    hall.hub.disconnect(ana, "reset")
    assert [(line["type"], line["log"]) for line in hall.take(ben)] == [("left", "lobby"), ("left", "tea")]
    hall.hub.disconnect(ben, "reset")
    assert [room.log.name for room in hall.hub.rooms] == ["lobby"]


def test_attach_follows_all_rooms_from_where_one_came(hall: Hall) -> None:
    ana = hall.join("ana")
    for message in (Say("early"), Join("tea", 4), Say("x", room="tea")):
        hall.hub.receive(ana, message)
    second = hall.connect(Attach("token1", {"lobby": 0, "tea": 0, "tin": 9}))
    attached, *lines = hall.take(second)
    assert attached == {"type": "attached", "nick": "ana", "cursors": {"inbox": 0, "lobby": 0, "tea": 1}, "id": 4}
    assert [(line["log"], line["seq"]) for line in lines] == [("lobby", 1), ("lobby", 2), ("tea", 2)]
    hall.hub.receive(ana, Leave("tea"))
    assert hall.kinds(second) == ["member"]


def test_a_standby_connection_learns_of_rooms_but_gets_no_lines(hall: Hall) -> None:
    ana = hall.join("ana")
    standby = hall.connect(Attach("token1", follow=False))
    hall.take(standby)
    hall.hub.receive(ana, Join("tea", 1))
    hall.hub.receive(ana, Say("x", room="tea"))
    assert hall.take(standby) == []
    hall.hub.receive(standby, Attach("token1", {"lobby": 1, "inbox": 0}))
    assert [line["type"] for line in hall.take(standby)] == ["attached", "said"]


def test_settle_tells_how_far_the_server_has_come(hall: Hall) -> None:
    ana = hall.join("ana")
    for message in (Say("x", 7), Settle()):
        hall.hub.receive(ana, message)
    assert hall.take(ana)[0] == {"type": "settled", "id": 7, "nick": "ana", "cursors": {"inbox": 0, "lobby": 2}}


def test_repr(hall: Hall) -> None:
    hall.join("ana")
    assert repr(hall.hub._directory) == "<Directory of 1>"


# Over sockets.


@pytest.mark.realtime("chat")
@pytest.mark.parametrize("mode", MODES)
def test_rooms_outlive_broken_connections(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    relay = Relay(clients.loop, server.address)
    ana = clients.join("ana", relay.address, mode=mode)
    ben = clients.join("ben", server.address)
    ana.join("tea")
    clients.until(lambda: ana.rooms == ["lobby", "tea"])
    ben.join("tea")
    clients.until(lambda: PeerJoined("ben", "tea") in clients.events[ana])
    relay.reset()
    clients.until(lambda: ana.away)
    ben.say("while you were away", room="tea")
    ana.say("from afar", room="TEA")
    ana.leave_room("tea")
    ana.join("tin")
    ana.say("here", room="tin")
    clients.until(lambda: not ana.pending)
    assert [(event.text, event.log) for event in clients.of(ana, Received)] == [("while you were away", "tea")]
    assert [(event.text, event.log) for event in clients.of(ana, Echoed)] == [("from afar", "tea"), ("here", "tin")]
    assert clients.of(ana, Entered) == [Entered("tea"), Entered("tin")]
    assert clients.of(ana, Departed) == [Departed("tea")]
    assert ana.rooms == ["lobby", "tin"]
    clients.until(lambda: PeerLeft("ana", "left the room", "tea") in clients.events[ben])
    ana.say("not in here", room="tea")
    ana.who("tea")
    ana.list_rooms()
    clients.until(lambda: clients.of(ana, RoomList) and clients.of(ana, Refused))
    assert clients.of(ana, Refused)[0].code == "not_in_room"
    assert clients.of(ana, Present) == [Present(["ben"], "tea")]
    assert clients.of(ana, RoomList) == [RoomList({"lobby": 2, "tea": 1, "tin": 1})]
    leave(clients, ana, ben)
    relay.close()


@pytest.mark.realtime("chat")
@pytest.mark.parametrize("mode", ["standby", "redundant"])
def test_a_slow_connection_brings_the_last_lines_of_a_room(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    """The other connection is let in again when the server has made us leave, and says so at once."""
    slow, fast = Relay(clients.loop, server.address), Relay(clients.loop, server.address)
    ana = clients.join("ana", slow.address, fast.address, mode=mode)
    ben = clients.join("ben", server.address)
    ana.join("tea")
    clients.until(lambda: Entered("tea") in clients.events[ana] and PathUp("secondary") in clients.events[ana])
    ben.join("tea")
    clients.until(lambda: PeerJoined("ben", "tea") in clients.events[ana])
    fast.reset()
    fast.hold(True)
    slow.hold_answers(True)
    ana.say("my last word", room="tea")
    ana.leave_room("tea")
    clients.until(lambda: PeerLeft("ana", "left the room", "tea") in clients.events[ben])
    fast.hold(False)
    clients.until(lambda: len(clients.of(ana, PathUp)) == 3)
    assert ana.rooms == ["lobby", "tea"]
    slow.hold_answers(False)
    clients.until(lambda: Departed("tea") in clients.events[ana])
    assert [event.text for event in clients.of(ana, Echoed)] == ["my last word"]
    assert not ana.pending
    leave(clients, ana, ben)
    for relay in (slow, fast):
        relay.close()


@pytest.mark.realtime("chat")
def test_who_begins_anew_comes_back_to_its_rooms(server: ServerProcess, clients: Clients) -> None:
    with server_process() as first:
        ana = clients.join("ana", first.address)
        ana.join("tea")
        clients.until(lambda: ana.rooms == ["lobby", "tea"])
        first.process.kill()
        first.end()
        clients.until(lambda: ana.away)
        with server_process(port=first.address[1]):
            clients.until(lambda: clients.of(ana, StartedAnew))
            ana.say("I am back", room="tea")
            clients.until(lambda: not ana.pending)
            assert clients.of(ana, Echoed)[0].log == "tea"
            leave(clients, ana)


@pytest.mark.realtime("chat")
def test_an_echo_that_is_dropped_leaves_nothing_pending(clients: Clients) -> None:
    """A lobby of two lines: who reads slowly misses its own echoes, and is told so."""
    server = ChatServer(clients.loop, "127.0.0.1", 0)
    server.hub.rooms.lobby.log.max_lines = 2
    relay = Relay(clients.loop, server.address)
    ana = clients.join("ana", relay.address)
    ben = clients.join("ben", server.address)
    clients.until(lambda: clients.of(ana, PeerJoined))
    number = ana.say("x")
    relay.drop_answers = True
    clients.until(lambda: any(event.text == "x" for event in clients.of(ben, Received)))
    for _ in range(5):
        ben.say("y")
    clients.until(lambda: not ben.pending)
    relay.reset()
    relay.drop_answers = False
    clients.until(lambda: not ana.pending)
    assert clients.of(ana, EchoMissed) == [EchoMissed(number)]
    assert sum(event.missed for event in clients.of(ana, Gap)) + len(clients.of(ana, Received)) == 6
    leave(clients, ana, ben)
    server.close("")
    clients.until(lambda: server.idle)
    relay.close()


@pytest.mark.realtime("chat")
@pytest.mark.parametrize("mode", MODES)
def test_a_new_nickname_outlives_broken_connections(server: ServerProcess, clients: Clients, mode: Mode) -> None:
    relay = Relay(clients.loop, server.address)
    ana = clients.join("ana", relay.address, mode=mode)
    ben = clients.join("ben", server.address)
    relay.reset()
    clients.until(lambda: ana.away)
    ana.rename("Anna")
    ana.say("guess who")
    ana.tell("ben", "psst")
    clients.until(lambda: not ana.pending)
    assert ana.nick == "Anna"
    assert Renamed("ana", "Anna", "lobby", own=True) in clients.events[ana]
    clients.until(lambda: len(clients.of(ben, Received)) == 2)
    assert [event.sender for event in clients.of(ben, Received)] == ["Anna", "Anna"]
    assert clients.of(ben, Renamed) == [Renamed("ana", "Anna", "lobby", own=False)]
    ana.rename("BEN")
    clients.until(lambda: clients.of(ana, Refused))
    assert clients.of(ana, Refused)[0].reason == "Somebody here is already called ben."
    leave(clients, ana, ben)
    relay.close()
