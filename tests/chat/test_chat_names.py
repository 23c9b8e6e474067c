"""Names: which there are, which are the same, which only look the same. chat/README.md, "Sessions"."""

import unicodedata
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from chat_helpers import RawClient, server_process

from chat.protocol import names
from chat.protocol.errors import Refusal
from chat.protocol.names import clean_nick, clean_room, fold, skeleton
from chat.server.directory import Directory
from chat.server.log import Log
from chat.server.members import Session
from chat.server.rooms import Rooms


def session(nick: str) -> Session:
    return Session(nick, "", "token", Log("inbox", max_lines=1, max_bytes=1))


@pytest.mark.parametrize(
    "nick",
    [
        *("you", "You", "yоu", "YОU", "*", "* ana", "*ana", "!ana", "[tea]", "/exit", "cleo:", "cleo→you"),
        *("a\u034fna", "\u3164", "\u2800", "ana\ufe0f", "\u200dana", "क्\u200d", "ana\u00ad", "😀", "½", "\ud800"),
        *("a\u0301\u0302\u0303\u0304\u0306", "x\u0316\u0316"),
    ],
)
def test_a_name_that_a_display_reserves_or_nobody_can_see_is_refused(nick: str) -> None:
    with pytest.raises(Refusal) as refusal:
        clean_nick(nick, 32)
    assert refusal.value.code == "bad_nick"


@pytest.mark.parametrize(
    "nick", ["ana", "O'Neil", "m-1_x.y", "Zoë", "Ana\u0308", "Ольга", "名前", "שלום", "हिन्दी", "Nguyễn", "a:b"]
)
def test_names_of_the_world_are_names(nick: str) -> None:
    assert clean_nick(nick, 32) == unicodedata.normalize("NFC", nick)


def test_inbox_is_no_room_however_it_is_written() -> None:
    for name in ("inbox", "INBOX", "ｉnbox", "inbоx"):
        with pytest.raises(Refusal, match="is not inbox"):
            clean_room(name, 32)


@pytest.mark.parametrize("other", ["pаypal", "paypa1", "ρaypal", "paypaI", "Рaypal", "PАYPАL", "рAурAI"])
def test_a_name_that_looks_like_another_is_taken(other: str) -> None:
    directory = Directory(32)
    first, second = session("paypal"), session(other)
    directory.take("paypal", first)
    with pytest.raises(Refusal, match=f"Somebody here has, or had, a name that looks like {other}"):
        directory.take(other, second)
    directory.take(other, first)  # one's own name may change into it
    directory.release(first)
    directory.take(other, second)
    assert directory.find("paypal") is None


def test_a_room_that_looks_like_another_is_not_opened() -> None:
    rooms = Rooms(name_chars=32)
    for other in ("lоbby", "Lоbby", "LОBBY"):
        with pytest.raises(Refusal, match="looks like the room lobby"):
            rooms.open(other)
    tea = rooms.open("tea")
    with pytest.raises(Refusal, match="looks like the room tea"):
        rooms.open("tеa")
    rooms.forget(tea)
    assert rooms.open("tеa").log.name == "tеa"


def test_the_short_table_is_that_of_the_library() -> None:
    """Most names are ASCII and never need the library's; it must say the same of them."""
    table = names._prototypes()
    for char in map(chr, range(33, 127)):
        assert skeleton(char) == unicodedata.normalize("NFD", table.get(char, char))


def test_nothing_long_is_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalisation takes time that grows with the square of the length: 2 s for 64 KiB of marks."""
    longest = 0

    def spied(form: str, text: str, normalize: Callable[..., str] = unicodedata.normalize) -> str:
        nonlocal longest
        longest = max(longest, len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", spied)
    marks = "\u0344\u0301\u0327" * 11_000
    directory, rooms = Directory(32), Rooms(name_chars=32)
    for attempt in (directory.clean, directory.called, rooms.open, lambda name: rooms.of(session("ana"), name)):
        with pytest.raises(Refusal) as refusal:
            attempt(marks)
        assert len(refusal.value.reason) < 400
    assert directory.find(marks) is None
    assert rooms.find(marks) is None
    assert fold("É") == fold("e\u0301")
    assert longest <= names.LONGEST_CHARS * names.COMPOSED_CHARS


def test_what_is_too_long_once_composed_is_no_matter_for_precis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules look at the whole name for each character: the square of 128 is 16 times that of 32."""
    looked_at = []
    enforce = names._profile("UsernameCaseMapped").enforce
    spy = SimpleNamespace(enforce=lambda name: looked_at.append(len(name)) or enforce(name))
    monkeypatch.setattr(names, "_profile", lambda _name: spy)
    for name in ("۰۱" * 64, "۰۱" * 17, "é" * 33):
        assert fold(name) == name
    assert looked_at == []
    assert fold("ﾊﾞ" * 32) == "バ" * 32, "as it comes it is longer"
    assert looked_at == [64]


@pytest.mark.realtime("chat")
def test_a_server_refuses_them() -> None:
    with server_process() as server, RawClient(server.address, "ana"):
        stranger = RawClient(server.address)
        for nick, code in (("\u0301" * 10_000, "bad_nick"), ("аna", "nick_in_use"), ("you", "bad_nick")):
            assert stranger.ask("refused", type="hello", nick=nick)["code"] == code
        stranger.close()
