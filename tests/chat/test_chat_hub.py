"""Hub: nicknames, sessions with several connections, routing, and each id once. No sockets."""

import itertools
import json
from typing import Any

import pytest
from sinks import EVERYTHING, Pipe

from chat.protocol.errors import Refusal
from chat.protocol.limits import Limits
from chat.protocol.messages import Attach, Bye, Hello, Join, Leave, Nick, Ping, Say, Tell, Up, Who
from chat.protocol.names import clean_nick, fold
from chat.server.guesses import MAX_WRONG
from chat.server.hub import MAX_CONNECTIONS, Hub
from chat.server.members import Connection
from chat.server.replay import ID_WINDOW, IdWindow
from chat.server.rooms import Rooms

KEY = "sixteen at least"


class Hall:
    """A hub and what each of its connections was sent."""

    def __init__(self, **options: Any) -> None:
        tokens = itertools.count(1)
        self.hub = Hub(lambda: f"token{next(tokens)}", **options)
        self.pipes: dict[Connection, Pipe] = {}

    def connect(self, *messages: Up) -> Connection:
        pipe = Pipe(self.hub.delivery)
        connection = pipe.connection
        self.pipes[connection] = pipe
        for message in messages:
            self.hub.receive(connection, message)
        return connection

    def join(self, nick: str) -> Connection:
        connection = self.connect(Hello(nick))
        assert self.take(connection)[0]["type"] == "welcome"
        return connection

    def take(self, connection: Connection) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.pipes[connection].flush().splitlines()]

    def kinds(self, connection: Connection) -> list[str]:
        return [message["type"] for message in self.take(connection)]


@pytest.fixture
def hall() -> Hall:
    return Hall()


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


@pytest.mark.parametrize(
    "nick", ["", " ", "a b", "a\n", "a\x00", "x" * 33, "a\u202eb", "a\u00a0b", "\u200b", "\ud800", "a\u2028"]
)
def test_bad_nicks(nick: str, hall: Hall) -> None:
    assert hall.take(hall.connect(Hello(nick)))[0]["code"] == "bad_nick"


def test_nicks_are_composed_before_they_are_counted_and_compared() -> None:
    assert clean_nick("e\u0301" * 32, 32) == "é" * 32
    assert fold("STRASSE") == fold("straße")
    assert fold("Ａna") == fold("ana")
    assert fold("É") == fold("e\u0301")


def test_nick_in_use(hall: Hall) -> None:
    hall.join("Straße")
    late = hall.connect(Hello("STRASSE"))
    assert hall.take(late) == [
        {"type": "refused", "code": "nick_in_use", "reason": "Somebody here is already called Straße."}
    ]
    hall.hub.receive(late, Hello("other"))
    assert hall.kinds(late) == ["welcome"]


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


def test_id_window() -> None:
    window = IdWindow()
    assert window.accept(5)
    assert window.accept(3)
    assert not window.accept(5)
    assert not window.accept(3)
    assert window.accept(4 + ID_WINDOW)
    assert not window.accept(5)
    with pytest.raises(Refusal, match="4 is more than 4096 behind"):
        window.accept(4)
    assert window.accept(2**53 - 1)
    assert not window.accept(2**53 - 1)
    assert window.accept(2**53 - 2)


def test_id_window_leaves_ids_out_around_the_end_of_its_ring() -> None:
    window = IdWindow()
    for number in range(1, ID_WINDOW - 1):
        assert window.accept(number)
    assert not window.accept(7)
    assert window.accept(ID_WINDOW + 3)
    for number in range(ID_WINDOW - 1, ID_WINDOW + 3):
        assert window.accept(number)
        assert not window.accept(number)
    assert not window.accept(ID_WINDOW - 2)


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


def test_attach_replays_from_the_cursors(hall: Hall) -> None:
    ana = hall.join("ana")
    hall.hub.receive(ana, Say("one"))
    hall.hub.receive(ana, Say("two"))
    second = hall.connect(Attach("token1", {"lobby": 2, "no such log": 4}))
    assert hall.take(second) == [
        {"type": "attached", "nick": "ana", "cursors": {"inbox": 0, "lobby": 2}},
        {"type": "said", "log": "lobby", "seq": 3, "from": "ana", "text": "two"},
    ]
    third = hall.connect(Attach("token1", {"lobby": 99}))
    assert hall.take(third)[0]["cursors"] == {"inbox": 0, "lobby": 3}


def test_attach_announces_what_fell_out_of_the_log() -> None:
    hall = Hall(rooms=Rooms(name_chars=32, lobby_lines=2))
    ana = hall.join("ana")
    for text in "abcd":
        hall.hub.receive(ana, Say(text))
    second = hall.connect(Attach("token1", {"lobby": 1}))
    assert hall.take(second)[1:] == [
        {"type": "gap", "log": "lobby", "missed": 2},
        {"type": "said", "log": "lobby", "seq": 4, "from": "ana", "text": "c"},
        {"type": "said", "log": "lobby", "seq": 5, "from": "ana", "text": "d"},
    ]


def test_one_more_connection_takes_the_place_of_the_oldest(hall: Hall) -> None:
    """A crowd behind one address, whose ways broke three times in half a minute, was not let in any more."""
    ways = [hall.join("ana"), *(hall.connect(Attach("token1")) for _ in range(MAX_CONNECTIONS - 1))]
    (session,) = hall.hub._by_token.values()
    assert [*session.connections] == ways
    hall.hub.receive(ways[-1], Attach("token1"))
    assert [*session.connections] == ways, "it is no other one"
    new = hall.connect(Attach("token1"))
    assert [*session.connections] == [*ways[1:], new]
    assert ways[0].closing
    assert hall.take(ways[0])[-1]["code"] == "too_many_connections"
    hall.hub.receive(new, Say("still here"))
    assert hall.kinds(new)[-1] == "said"


def test_standby_follows_nothing_until_it_takes_over(hall: Hall) -> None:
    ana = hall.join("ana")
    standby = hall.connect(Attach("token1", {"lobby": 1}, follow=False))
    hall.hub.receive(ana, Say("one"))
    assert hall.kinds(standby) == ["attached"]
    hall.hub.receive(standby, Attach("token1", {"lobby": 1}))
    assert hall.kinds(standby) == ["attached", "said"]


def test_a_session_outlives_a_connection_but_not_the_last(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    second = hall.connect(Attach("token1"))
    hall.take(ben)
    hall.hub.disconnect(ana, "reset")
    assert ana.closing
    assert hall.kinds(ben) == []
    hall.hub.disconnect(second, "reset")
    assert hall.take(ben) == [{"type": "left", "log": "lobby", "seq": 3, "nick": "ana", "reason": "reset"}]
    assert hall.kinds(second) == ["attached", "joined"]
    assert hall.take(hall.connect(Attach("token1")))[0]["code"] == "bad_token"
    hall.hub.disconnect(second, "again")
    assert hall.kinds(ben) == []
    hall.join("ana")


def test_a_session_with_a_key_is_kept_when_its_connections_break(hall: Hall) -> None:
    ana, ben = hall.connect(Hello("ana", KEY)), hall.join("ben")
    hall.take(ana)
    hall.hub.disconnect(ana, "reset", keep_until_ns=100)
    hall.hub.receive(ben, Say("while you were away"))
    hall.hub.receive(ben, Tell("ana", "psst"))
    hall.hub.expire(99)
    assert hall.kinds(ben) == ["said", "told"]
    back = hall.connect(Attach("token1", {"inbox": 0, "lobby": 2}))
    assert hall.kinds(back) == ["attached", "told", "said"]
    hall.hub.expire(1000)
    assert hall.hub.nicks == ["ana", "ben"]
    hall.hub.disconnect(back, "reset", keep_until_ns=2000)
    hall.hub.expire(2000)
    assert hall.take(ben)[-1] == {"type": "left", "log": "lobby", "seq": 4, "nick": "ana", "reason": "reset"}
    assert hall.take(hall.connect(Attach("token1")))[0]["code"] == "bad_token"


def test_a_session_is_not_kept_without_a_key_or_after_an_orderly_end(hall: Hall) -> None:
    ana, ben = hall.connect(Hello("ana", KEY)), hall.join("ben")
    hall.hub.disconnect(ben, "reset", keep_until_ns=100)
    assert hall.hub.nicks == ["ana"]
    hall.hub.disconnect(ana, "closed by the other end")
    assert hall.hub.nicks == []


def test_the_same_hello_is_welcomed_again(hall: Hall) -> None:
    ana = hall.connect(Hello("ana", KEY))
    hall.hub.disconnect(ana, "reset", keep_until_ns=100)
    again = hall.connect(Hello("ana", "another random key"), Hello("ana"), Hello("ana", KEY))
    found = hall.take(again)
    assert [message.get("code") for message in found] == ["nick_in_use", "nick_in_use", None]
    assert (found[2]["token"], found[2]["cursors"]) == ("token1", {"inbox": 0, "lobby": 1})
    hall.hub.close("over")
    hall.hub.expire(1000)
    assert hall.kinds(again) == ["bye"]


def test_an_active_connection_can_be_told_to_stand_by(hall: Hall) -> None:
    ana = hall.join("ana")
    hall.hub.receive(ana, Attach("token1", {}, follow=False))
    hall.hub.receive(ana, Say("not for this connection"))
    assert hall.kinds(ana) == ["attached"]


def test_bye_ends_all_connections_of_the_session(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    second = hall.connect(Attach("token1", {}, follow=False))
    hall.take(ana)
    hall.take(second)
    hall.hub.receive(ana, Say("last words", 1))
    hall.hub.receive(ana, Bye())
    assert ana.closing
    assert second.closing
    assert hall.kinds(ana) == ["said", "bye"]
    assert hall.kinds(second) == ["bye"]
    assert hall.kinds(ben) == ["said", "left"]


def test_the_inbox_goes_with_its_session(hall: Hall) -> None:
    ana = hall.join("ana")
    hall.hub.receive(ana, Tell("ana", "note"))
    hall.hub.receive(ana, Bye())
    assert hall.hub.delivery.flush() == [ana]
    assert repr(hall.hub.delivery) == "<Delivery of 1 log(s)>"


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


def test_another_nickname_and_the_ones_before_are_kept(hall: Hall) -> None:
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.take(ana)
    hall.hub.receive(ana, Nick("Anna", 5))
    hall.hub.receive(ana, Say("it is me"))
    renamed = {"type": "renamed", "log": "lobby", "seq": 3, "nick": "ana", "to": "Anna", "id": 5}
    assert hall.take(ben) == [renamed, {"type": "said", "log": "lobby", "seq": 4, "from": "Anna", "text": "it is me"}]
    assert hall.take(ana)[0] == {**renamed, "log": "inbox", "seq": 1}
    assert hall.hub.nicks == ["Anna", "ben"]
    hall.hub.receive(ben, Nick("ANA"))
    hall.hub.receive(ben, Nick("anna"))
    hall.hub.receive(ben, Nick("a b"))
    hall.hub.receive(ben, Tell("ana", "psst"))
    reasons = [line.get("reason", line["type"]) for line in hall.take(ben)]
    assert reasons[:2] == ["Somebody here was called ANA before.", "Somebody here is already called Anna."]
    assert hall.take(ana)[0]["to"] == "Anna"
    hall.hub.disconnect(ana, "reset")
    hall.hub.receive(ben, Nick("ana"))
    assert hall.take(ben)[-1]["type"] == "renamed"


def test_nobody_may_collect_nicknames(hall: Hall) -> None:
    ana = hall.join("ana")
    for number in range(8):
        hall.hub.receive(ana, Nick(f"ana{number}"))
    hall.hub.receive(ana, Nick("ana0"))
    found = hall.take(ana)
    assert [line["code"] for line in found if line["type"] == "refused"] == ["too_many_nicks"]
    assert hall.hub.nicks == ["ana0"]
    hall.join("ana7")


def test_the_second_hello_begins_where_the_session_began(hall: Hall) -> None:
    """The answer to the first one may have been lost, and what was said since."""
    ben = hall.join("ben")
    first = hall.connect(Hello("ana", KEY))
    hall.hub.receive(ben, Tell("ana", "psst"))
    hall.hub.receive(ben, Say("hello ana"))
    hall.hub.disconnect(first, "broke", keep_until_ns=1)
    welcome, *lines = hall.take(hall.connect(Hello("ana", KEY)))
    assert welcome["cursors"] == {"inbox": 0, "lobby": 2}
    assert sorted(line["text"] for line in lines) == ["hello ana", "psst"]


def test_who_has_a_token_need_not_guess(hall: Hall) -> None:
    """Others behind the same address have; and tokens that are out of date are held against nobody else."""
    ana = hall.connect(Hello("ana", KEY))
    token = hall.take(ana)[0]["token"]
    for number in range(MAX_WRONG):
        hall.hub.receive(hall.connect(), Hello("ana", f"{number:016}"))
    assert hall.take(hall.connect(Attach(token, {})))[0]["type"] == "attached"
    assert hall.take(hall.connect(Attach("x", {})))[0]["code"] == "too_many_tries"
    hall.hub.guesses.forgive()
    for _ in range(MAX_WRONG):
        assert hall.take(hall.connect(Attach("x", {})))[0]["code"] == "bad_token"
    assert hall.take(hall.connect(Hello("ana", KEY)))[0]["type"] == "welcome"


def test_one_connection_piles_nothing_up_for_another(hall: Hall) -> None:
    """Each time that a room is left, its last lines are told; the other connection does not take them."""
    ana = hall.connect(Hello("ana"))
    token = hall.take(ana)[0]["token"]
    deaf = hall.connect(Attach(token, {}))
    hall.take(deaf)
    ben = hall.join("ben")
    hall.hub.receive(ben, Join("tea"))
    hall.pipes[deaf].room = 0
    for _ in range(40):
        hall.hub.receive(ana, Join("tea"))
        for _ in range(4):
            hall.hub.receive(ben, Say("x" * 8_000, room="tea"))
        hall.hub.receive(ana, Leave("tea"))
        hall.take(ana)
    assert deaf.closing
    assert not ana.closing
    hall.pipes[deaf].room = EVERYTHING
    hall.hub.delivery.on_writable(deaf)
    assert hall.take(deaf)[-1]["code"] == "too_slow"


@pytest.mark.parametrize(("limits", "left"), [({"connections_per_address": 2}, "12cd"), ({"connections": 3}, "bcd")])
def test_sessions_without_a_connection_do_not_pile_up(limits: dict[str, int], left: str) -> None:
    """Of as many as there may be connections, from one address or in all, the oldest goes."""
    hall = Hall(limits=Limits(**limits))
    for nick, origin in (("1", "there"), ("a", "here"), ("2", "there"), ("b", "here"), ("c", "here"), ("d", "here")):
        connection = hall.connect(Hello(nick, KEY))
        connection.origin = origin
        hall.hub.disconnect(connection, "reset", keep_until_ns=100)
    assert sorted(hall.hub.nicks) == [*left]
