"""ClientSession: first copy wins, echoes are matched, gaps are counted. No sockets, no clock."""

import pytest
from session_helpers import receive, said

from chat.client.events import (
    Echoed,
    EchoedAgain,
    Gap,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    ReceivedAgain,
    Refused,
)
from chat.client.outgoing import MAX_UNDER_WAY
from chat.client.session import ClientSession
from chat.protocol import messages
from chat.protocol.errors import NotRegistered, NotText, PeerError, TooLong, TooMuchUnderWay
from chat.protocol.limits import Limits


def test_nothing_can_be_said_before_the_welcome() -> None:
    session = ClientSession("ana")
    assert session.hello() == b'{"type":"hello","nick":"ana"}\n'
    with pytest.raises(NotRegistered):
        session.say("x", 0, 0)


def test_the_server_has_the_last_word_on_the_nick(session: ClientSession) -> None:
    assert session.nick == "Ana"
    assert session.attach(False) == (
        b'{"type":"attach","token":"secret","cursors":{"lobby":4,"inbox":0},"follow":false}\n'
    )


def test_echo(session: ClientSession) -> None:
    number = session.say("hé", 1_000, 1_200)
    assert session.unanswered(0, 1) == ('{"type":"say","text":"hé","id":1}\n'.encode(), 1)
    (echo,) = receive(session, said(5, "Ana", number))
    assert echo == Echoed(1, "say", 3, 1_000, 1_200, 2_000, 2_500, True, "primary", None, "hé", "lobby", 5)
    assert isinstance(echo, Echoed)
    assert (echo.response_time_ns, echo.service_time_ns) == (1_000, 800)
    assert session.pending == 0


def test_private_echo(session: ClientSession) -> None:
    number = session.tell("ben", "psst", 1, 1)
    assert session.unanswered(0, 1) == (b'{"type":"tell","to":"ben","text":"psst","id":1}\n', 1)
    (echo,) = receive(session, messages.Told("inbox", 1, "Ana", "ben", "psst", number))
    assert isinstance(echo, Echoed)
    assert (echo.kind, echo.to) == ("tell", "ben")


def test_first_copy_wins_on_either_path(session: ClientSession) -> None:
    session.say("a", 0, 0)
    (echo,) = receive(session, said(5, "Ana", 1, "a"), "secondary")
    assert isinstance(echo, Echoed)
    assert echo.path == "secondary"
    assert receive(session, said(5, "Ana", 1)) == [EchoedAgain(1, "primary", 2_000, 2_500, True, 0)]
    assert receive(session, said(5, "ben", 1)) == [ReceivedAgain("ben", 1, "primary", 2_000, 2_500, True, 0)]
    assert session.duplicates == 2


def test_others_messages(session: ClientSession) -> None:
    assert receive(session, said(5, "ben", 1)) == [
        Received("say", "ben", None, "hé", 1, "lobby", 5, 2_000, 2_500, True, "primary")
    ]
    assert receive(session, messages.Told("inbox", 1, "ben", "Ana", "psst")) == [
        Received("tell", "ben", "Ana", "psst", None, "inbox", 1, 2_000, 2_500, True, "primary")
    ]


def test_own_message_that_is_not_awaited_is_just_a_message(session: ClientSession) -> None:
    (event,) = receive(session, said(5, "Ana", 77))
    assert isinstance(event, Received)


def test_coming_and_going(session: ClientSession) -> None:
    assert receive(session, messages.Joined("lobby", 5, "ben")) == [PeerJoined("ben")]
    assert receive(session, messages.Left("lobby", 6, "ben", "reset")) == [PeerLeft("ben", "reset")]


def test_refused(session: ClientSession) -> None:
    number = session.say("", 0, 0)
    line = messages.Refused("empty_text", "The text is empty.", number, "inbox", 1)
    assert receive(session, line) == [Refused(number, "empty_text", "The text is empty.")]
    assert receive(session, line, "secondary") == []
    assert session.pending == 0
    assert receive(session, messages.Refused("bad_token", "No.")) == [Refused(None, "bad_token", "No.")]
    assert receive(session, messages.Refused("x", "No.", None, "inbox", 2)) == [Refused(None, "x", "No.")]


def test_a_copy_that_came_too_late_to_be_known_as_one_is_no_news(session: ClientSession) -> None:
    number = session.say("hé", 0, 0)
    (echo,) = receive(session, said(5, "Ana", number))
    assert isinstance(echo, Echoed)
    refusal = messages.Refused("stale_id", "Ids must rise.", number)
    assert receive(session, refusal) == []
    number = session.say("hé", 0, 0)
    refusal = messages.Refused("stale_id", "Ids must rise.", number)
    assert receive(session, refusal) == [Refused(number, "stale_id", "Ids must rise.")]


def test_gaps_show_in_the_numbers(session: ClientSession) -> None:
    assert receive(session, messages.Gap("lobby", 3)) == []
    assert receive(session, said(8))[0] == Gap("lobby", 3)
    assert receive(session, said(9))[0] != Gap("lobby", 0)
    assert receive(session, messages.Said("a room where we are not", 40, "ben", "x")) == []


def test_what_comes_from_no_log(session: ClientSession) -> None:
    assert receive(session, messages.Present(["Ana"])) == [Present(["Ana"])]
    assert receive(session, messages.Error("malformed", "What?")) == [Refused(None, "malformed", "What?")]
    assert receive(session, messages.Pong(1)) == []


def test_unanswered_messages_can_be_sent_again(session: ClientSession) -> None:
    for text in "abcd":
        session.say(text, 0, 0)
    receive(session, said(5, "Ana", 2, "b"))
    lines = {
        number: b'{"type":"say","text":"%s","id":%d}\n' % (b"abcd"[number - 1 : number], number) for number in (1, 3, 4)
    }
    assert session.unanswered(0, 1000) == (lines[1] + lines[3] + lines[4], 4)
    assert session.unanswered(0, len(lines[1] + lines[3])) == (lines[1] + lines[3], 3)
    assert session.unanswered(1, 1) == (lines[3], 3)
    assert session.unanswered(4, 1000) == (b"", 4)
    assert session.lost == (1, 3, 4)


def test_half_a_character_is_not_taken(session: ClientSession) -> None:
    """Python makes one of a byte that is not UTF-8."""
    for attempt in (session.join, session.leave):
        with pytest.raises(NotText, match=r"^That cannot be sent: \\udce4 in it is no character\.$"):
            attempt("te\udce4", 0)
    with pytest.raises(NotText):
        session.say("\ud83d", 0, 0)
    with pytest.raises(NotText):
        session.request(lambda number: messages.Nick("\udcff", number), 0)
    assert (session.pending, session.waiting) == (0, 0)
    assert session.say("next", 0, 0) == 1
    for nick, password in (("\udcff", ""), ("ana", "\udcff")):
        with pytest.raises(NotText):
            ClientSession(nick, "", password)


def test_what_fits_no_line_is_not_taken(session: ClientSession) -> None:
    """The server would end the session over it, and be asked for the same in the next one."""
    room = "x" * session.limits.line_bytes
    for attempt in (session.join, session.leave):
        with pytest.raises(TooLong, match="no more than 65536 bytes"):
            attempt(room, 0)
    with pytest.raises(TooLong):
        session.request(lambda number: messages.Nick(room, number), 0)
    assert (session.pending, session.waiting) == (0, 0)
    session.join("tea", 0)
    assert session.unanswered(0, 1000)[0].startswith(b'{"type":"join","room":"tea"')


def test_a_welcome_without_a_lobby_is_no_welcome() -> None:
    with pytest.raises(PeerError, match="lacks the lobby"):
        ClientSession("ana").welcome(messages.Welcome("ana", "t", {"inbox": 0}, Limits()))


def test_own_names_are_not_collected_without_end(session: ClientSession) -> None:
    names = [f"ana{number}" for number in range(1_000)]
    for seq, (old, new) in enumerate(zip(["Ana", *names], names, strict=False), 5):
        receive(session, messages.Renamed("lobby", seq, old, new))
    assert session.nick == names[-1]
    assert len(session._identity.names) < 100


def test_no_more_under_way_than_the_server_can_tell_apart(session: ClientSession) -> None:
    for _ in range(MAX_UNDER_WAY):
        session.say("x", 0, 0)
    with pytest.raises(TooMuchUnderWay, match="4000 messages are under way"):
        session.say("x", 0, 0)
    # Ids count, not messages: one that stays unanswered holds the window where it is.
    receive(session, said(5, "Ana", 2, "x"))
    with pytest.raises(TooMuchUnderWay):
        session.say("x", 0, 0)
    receive(session, said(6, "Ana", 1, "x"))
    session.say("x", 0, 0)


def test_repr(session: ClientSession) -> None:
    assert repr(ClientSession("x")) == "<ClientSession x not registered, 0 pending, 0 duplicate(s)>"
    assert repr(session) == "<ClientSession Ana registered, 0 pending, 0 duplicate(s)>"
