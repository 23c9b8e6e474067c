"""Hub: who may speak, what goes to whom, and each id once. No sockets."""

from hub_helpers import Hall

from chat.protocol.limits import Limits
from chat.protocol.messages import Attach, Bye, Hello, Ping, Say, Tell, Who


def test_welcome_and_joined(hall: Hall) -> None:
    ana = hall.connect(Hello("Ana"))
    (welcome,) = hall.take(ana)
    assert welcome == {
        "type": "welcome",
        "nick": "Ana",
        "token": "token1",
        "cursors": {"inbox": 0, "lobby": 1},
        "limits": {
            "line_bytes": 65536,
            "text_bytes": 8192,
            "nick_chars": 32,
            "topic_chars": 300,
            "file_window_bytes": 524288,
            "files": 8,
            "rooms": 16,
            "cost_per_s": 0,
            "cost_burst": 0,
            "connections": 0,
            "connections_per_address": 0,
        },
    }
    ben = hall.join("ben")
    assert hall.take(ana) == [{"type": "joined", "log": "lobby", "seq": 2, "nick": "ben"}]
    assert hall.take(ben) == []
    assert hall.hub.nicks == ["Ana", "ben"]


def test_strangers_may_only_ask_in(hall: Hall) -> None:
    stranger = hall.connect(Say("x", 3), Who(), Attach("guess"), Ping(5))
    assert [(m.get("code"), m.get("id"), m.get("n")) for m in hall.take(stranger)] == [
        ("not_registered", 3, None),
        ("not_registered", None, None),
        ("bad_token", None, None),
        (None, None, 5),
    ]
    hall.hub.receive(stranger, Bye())
    assert stranger.closing
    assert hall.kinds(stranger) == ["bye"]


def test_say_comes_back_to_its_sender(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.hub.receive(ben, Say("hi", 1))
    said = {"type": "said", "log": "lobby", "seq": 3, "from": "ben", "text": "hi", "id": 1}
    assert said in hall.take(ana)
    assert hall.take(ben) == [said]


def test_followers_share_the_bytes(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.take(ana)
    hall.hub.receive(ben, Say("hi"))
    hall.hub.delivery.flush()
    assert hall.pipes[ana].sends[-1] is hall.pipes[ben].sends[-1]
    assert not hall.hub.delivery.dirty


def test_tell_goes_to_both_inboxes_and_nowhere_else(hall: Hall) -> None:
    ana, ben, eve = hall.join("ana"), hall.join("ben"), hall.join("eve")
    for connection in (ana, ben, eve):
        hall.take(connection)
    hall.hub.receive(ana, Tell("BEN", "psst", 9))
    told = {"type": "told", "log": "inbox", "seq": 1, "from": "ana", "to": "ben", "text": "psst", "id": 9}
    assert hall.take(ana) == hall.take(ben) == [told]
    assert hall.take(eve) == []
    hall.hub.receive(ana, Tell("ana", "note"))
    assert [message["seq"] for message in hall.take(ana)] == [2]


def test_refusals_in_a_session_come_from_the_inbox(hall: Hall) -> None:
    ana = hall.join("ana")
    long, short = "é" * 4097, "é" * 4096
    for message in (Tell("zoe", "x", 1), Say("", 2), Say(long, 3), Say(short, 4), Hello("bea"), Attach("token9")):
        hall.hub.receive(ana, message)
    found = hall.take(ana)
    assert [(m["log"], m["seq"], m.get("id"), m.get("code")) for m in found] == [
        ("inbox", 1, 1, "no_such_nick"),
        ("inbox", 2, 2, "empty_text"),
        ("inbox", 3, 3, "text_too_long"),
        ("inbox", 4, None, "already_registered"),
        ("inbox", 5, None, "already_registered"),
        ("lobby", 2, 4, None),
    ]


def test_the_second_copy_is_dropped_even_where_the_first_was_refused(hall: Hall) -> None:
    ana = hall.join("ana")
    for message in (Tell("ben", "x", 1), Say("y", 2)):
        hall.hub.receive(ana, message)
    ben = hall.join("ben")
    for message in (Tell("ben", "x", 1), Say("y", 2), Say("no id"), Say("no id")):
        hall.hub.receive(ana, message)
    assert hall.hub.duplicates == 2
    assert [message["text"] for message in hall.take(ben)] == ["no id"] * 2


def test_who_and_ping(hall: Hall) -> None:
    ana, _ = hall.join("ana"), hall.join("ben")
    hall.take(ana)
    for message in (Who(), Ping(), Ping(3)):
        hall.hub.receive(ana, message)
    assert hall.take(ana) == [
        {"type": "present", "nicks": ["ana", "ben"]},
        {"type": "pong"},
        {"type": "pong", "n": 3},
    ]


def test_close_says_bye_to_everybody_and_tells_of_nobody(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.take(ana)
    hall.hub.close("closing time")
    for connection in (ana, ben):
        assert hall.take(connection) == [{"type": "bye", "reason": "closing time"}]
        assert connection.closing
    assert hall.hub.nicks == []


def test_limits_are_the_hubs() -> None:
    hall = Hall(limits=Limits(text_bytes=3, nick_chars=2))
    assert hall.take(hall.connect(Hello("abc")))[0]["code"] == "bad_nick"
    ana = hall.join("ab")
    hall.hub.receive(ana, Say("abcd"))
    assert hall.take(ana)[0]["code"] == "text_too_long"


def test_repr(hall: Hall) -> None:
    ana = hall.join("ana")
    assert repr(hall.hub) == "<Hub 1 session(s), 0 duplicate(s), <Rooms 1, <Log lobby 1…1 53 B>>>"
    assert repr(hall.hub.rooms.lobby) == "<Room lobby of 1>"
    assert repr(ana.session) == "<Session ana with 1 connection(s)>"
    assert repr(ana) == "<Connection of ana, at the head>"
    assert repr(hall.connect(Ping())) == "<Connection of a stranger, <Backlog 16 B direct, 0 B of files>>"
