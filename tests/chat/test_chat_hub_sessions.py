"""Sessions in the hub: several connections, what one is sent when it comes back, and when the end comes. No sockets."""

import pytest
from hub_helpers import KEY, Hall
from sinks import EVERYTHING

from chat.protocol.limits import Limits
from chat.protocol.messages import Attach, Bye, Hello, Join, Leave, Say, Tell
from chat.server.guesses import MAX_WRONG
from chat.server.hub import INBOX_LINES, MAX_CONNECTIONS
from chat.server.replay import ID_WINDOW
from chat.server.rooms import Rooms


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


def test_copies_that_come_very_late_push_nothing_out_of_the_inbox(hall: Hall) -> None:
    """Each is answered where it came; what others have told one in private is still there."""
    ana, ben = hall.join("ana"), hall.join("ben")
    session = ana.session
    assert session is not None
    hall.hub.receive(ben, Tell("ana", "do not forget"))
    before = session.inbox.last_seq
    hall.hub.receive(ana, Say("much later", ID_WINDOW + INBOX_LINES + 9))
    hall.take(ana)
    for number in range(1, INBOX_LINES + 9):
        hall.hub.receive(ana, Say("again", number))
    refused = hall.take(ana)
    assert {line["code"] for line in refused} == {"stale_id"}
    assert [line["id"] for line in refused] == [*range(1, INBOX_LINES + 9)]
    assert (session.inbox.first_seq, session.inbox.last_seq) == (1, before)
