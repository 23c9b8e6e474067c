"""What a room is about, and its last lines again: `topic` and `last`."""

from pathlib import Path

import pytest
from chat_helpers import RawClient, ServerProcess
from hub_helpers import Hall
from sinks import Pipe
from terminal_helpers import TerminalClient

from chat.protocol.limits import Limits
from chat.protocol.messages import Hello, Join, Leave, ListRooms, Recall, Say, SetTopic, Who
from chat.server.hub import Hub
from chat.server.journal import TRIM_LINES, Journal
from chat.server.log import Log
from chat.server.rooms import TOPICS_BYTES, Rooms


@pytest.fixture
def hall() -> Hall:
    return Hall(rooms=Rooms(name_chars=32), limits=Limits(topic_chars=10))


def test_a_topic_is_a_line_of_its_room(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.take(ana)
    hall.hub.receive(ana, Join("tea"))
    hall.hub.receive(ana, SetTopic("milk", 1, "TEA"))
    hall.hub.receive(ana, SetTopic("everybody"))
    in_lobby, line = sorted((each for each in hall.take(ana) if each["type"] == "topic"), key=lambda each: each["log"])
    assert line == {"type": "topic", "log": "tea", "seq": 2, "from": "ana", "text": "milk", "id": 1}
    assert in_lobby == {"type": "topic", "log": "lobby", "seq": 3, "from": "ana", "text": "everybody"}
    assert hall.take(ben) == [in_lobby], "who is not in the room hears nothing of it"
    for question in (Who("tea"), ListRooms()):
        hall.hub.receive(ben, question)
    present, rooms = hall.take(ben)
    assert present == {"type": "present", "nicks": ["ana"], "room": "tea", "topic": "milk"}
    assert rooms["topics"] == {"lobby": "everybody", "tea": "milk"}
    hall.hub.receive(ana, SetTopic("", room="tea"))
    hall.hub.receive(ana, Who("tea"))
    removed, present = sorted(hall.take(ana), key=lambda line: line["type"] == "present")
    assert (removed["text"], "topic" in present) == ("", False)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (SetTopic("milk", 1, "tea"), "not_in_room"),
        (SetTopic("x" * 11, 1), "topic_too_long"),
        (Recall(5, "tea"), "not_in_room"),
        (Recall(5, "nowhere"), "not_in_room"),
    ],
)
def test_refused(hall: Hall, message: SetTopic | Recall, code: str) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.hub.receive(ana, Join("tea"))
    hall.take(ben)
    hall.hub.receive(ben, message)
    (refused,) = hall.take(ben)
    assert refused["code"] == code


def test_a_topic_goes_with_its_room(hall: Hall) -> None:
    ana = hall.join("ana")
    for message in (Join("tea"), SetTopic("milk", room="tea"), Leave("tea"), Join("tea")):
        hall.hub.receive(ana, message)
    hall.take(ana)
    hall.hub.receive(ana, Who("tea"))
    assert hall.take(ana) == [{"type": "present", "nicks": ["ana"], "room": "tea"}]


def test_topics_in_one_answer_are_bounded() -> None:
    hall = Hall(limits=Limits(rooms=100))
    ana = hall.join("ana")
    for number in range(70):
        hall.hub.receive(ana, Join(f"room{number}"))
        hall.hub.receive(ana, SetTopic("x" * 300, room=f"room{number}"))
    hall.take(ana)
    hall.hub.receive(ana, ListRooms())
    (rooms,) = hall.take(ana)
    assert len(rooms["rooms"]) == 71
    assert len(rooms["topics"]) == TOPICS_BYTES // 300


def test_the_last_lines_also_those_from_before(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    for message in (Join("tea"), Say("one", 1, "tea"), Say("two", 2, "tea"), SetTopic("milk", room="tea")):
        hall.hub.receive(ana, message)
    hall.hub.receive(ben, Join("tea"))
    for connection in (ana, ben):
        hall.take(connection)
    hall.hub.receive(ben, Recall(3, "Tea"))
    (last,) = hall.take(ben)
    said = {"type": "said", "log": "tea", "seq": 3, "from": "ana", "text": "two", "id": 2}
    topic = {"type": "topic", "log": "tea", "seq": 4, "from": "ana", "text": "milk"}
    assert last == {"type": "last", "room": "tea", "lines": [said, topic, {**hall_joined("ben"), "seq": 5}]}
    assert hall.take(ana) == []
    hall.hub.receive(ben, Recall(0, "tea"))
    assert hall.take(ben) == [{"type": "last", "room": "tea", "lines": []}]


def hall_joined(nick: str) -> dict[str, object]:
    return {"type": "joined", "log": "tea", "nick": nick}


def test_the_tail_of_a_log_is_bounded() -> None:
    log = Log("tea", max_lines=5, max_bytes=100)
    assert log.tail(3, 100) == []
    for number in range(9):
        log.extend([b"%d\n" % number])
    assert log.tail(2, 100) == [b"7\n", b"8\n"]
    assert log.tail(100, 100) == [b"%d\n" % number for number in range(4, 9)]
    assert log.tail(100, 5) == [b"7\n", b"8\n"]
    assert log.tail(0, 100) == log.tail(5, 1) == []


def test_a_topic_survives_the_server_with_a_journal(tmp_path: Path) -> None:
    """Even one that was said so long ago that its line is no longer in the log."""

    def restored() -> tuple[Journal, Rooms]:
        journal, rooms = Journal(str(tmp_path / "journal")), Rooms(name_chars=32, room_lines=3)
        journal.restore(rooms)
        return journal, rooms

    journal, rooms = restored()
    hub = Hub(lambda: "token", rooms=rooms, keeper=journal)
    ana = Pipe(hub.delivery).connection
    for message in (Hello("ana"), SetTopic("everybody"), Join("Tea"), SetTopic("milk", room="tea")):
        hub.receive(ana, message)
    for _ in range(TRIM_LINES + 3):
        hub.receive(ana, Say("hot", room="tea"))
    journal.close()
    journal, rooms = restored()
    assert {room.log.name: room.topic for room in rooms} == {"lobby": "everybody", "Tea": "milk"}
    hub = Hub(lambda: "token", rooms=rooms, keeper=journal)
    hub.forget_restored()
    journal.close()
    journal, rooms = restored()
    hub = Hub(lambda: "token", rooms=rooms, keeper=journal)
    ana = Pipe(hub.delivery).connection
    for message in (Hello("ana"), Join("tea")):
        hub.receive(ana, message)
    tea = rooms.find("tea")
    assert tea is not None
    assert tea.topic == "", "forgotten with the room"
    journal.close()


@pytest.mark.realtime("chat")
def test_on_a_terminal(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        ben.send(type="join", room="tea")
        ben.send(type="say", text="before she came", room="tea")
        client = TerminalClient("ana", server, "--no-colour")
        client.type("/j tea\r")
        client.until("2 in tea: ben, ana")
        client.type("/topic teas of the world\r")
        client.until("* ana set the topic: teas of the world")
        client.type("/top\r")
        client.until("2 in tea: ben, ana; topic: teas of the world")
        client.type("/rooms\r")
        client.until("2 rooms: lobby (2), tea (2: teas of the world)")
        client.type("/ignore ben\r/last\r")
        client.until("| * ana set the topic: teas of the world")
        assert "before she came" not in client.screen
        client.type("/ignore ben\r/last 9\r")
        client.until("the last 4 lines of tea:")
        client.until("| ben: before she came")
        ben.send(type="topic", text="", room="tea")
        client.until("* ben removed the topic")
        client.type("/last 0\r")
        client.until("! /last takes a number of lines, from 1 to 1000.")
        client.type("/quit\r")
        assert client.end() == 0
