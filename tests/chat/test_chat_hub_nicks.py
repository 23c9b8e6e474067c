"""Nicknames in the hub: which are good, and whose they are, also those from before. No sockets."""

import pytest
from hub_helpers import Hall

from chat.protocol.messages import Hello, Nick, Say, Tell
from chat.protocol.names import clean_nick, fold


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
