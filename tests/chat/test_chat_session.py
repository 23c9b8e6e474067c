"""ClientSession: first copy wins, echoes are matched, gaps are counted. No sockets, no clock."""

import pytest

from chat.client.events import (
    Departed,
    Echoed,
    EchoedAgain,
    Entered,
    Event,
    Gap,
    NotSent,
    PathName,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    ReceivedAgain,
    Refused,
    Renamed,
)
from chat.client.outgoing import MAX_UNDER_WAY
from chat.client.session import ClientSession
from chat.protocol import messages
from chat.protocol.errors import NotRegistered, NotText, PeerError, TooLong, TooMuchUnderWay
from chat.protocol.filemessages import FileEnd
from chat.protocol.limits import Limits
from chat.protocol.messages import Down


@pytest.fixture
def session() -> ClientSession:
    session = ClientSession("ana")
    session.welcome(messages.Welcome("Ana", "secret", {"lobby": 4, "inbox": 0}, Limits()))
    session.following.add("primary")
    return session


def receive(session: ClientSession, message: Down, path: PathName = "primary") -> list[Event]:
    return session.receive(message, path, 2_000, 2_500, True)


def said(seq: int, nick: str = "ben", number: int | None = None, text: str = "hé") -> messages.Said:
    return messages.Said("lobby", seq, nick, text, number)


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


def test_what_no_connection_was_given_waits_for_the_next_session(session: ClientSession) -> None:
    session.join("tea", 0)
    session.unanswered(0, 1000)
    session.member({"tea": 3}, 1, "primary")
    session.say("given", 0, 0)
    session.tell("ben", "given too", 0, 0)
    session.unanswered(0, 1000)
    session.say("waits", 0, 0, "tea")
    assert session.waiting == 1
    session.forget()
    assert session.token == ""
    assert (session.in_doubt, session.pending, session.waiting) == ((2, 3), 1, 1)
    session.say("later", 0, 0)
    rooms = session.rooms[1:]
    assert not session.welcome(messages.Welcome("Ana", "new", {"lobby": 1, "inbox": 0}, Limits()))
    session.rejoin(rooms, 0)
    assert session.give_up(rooms=True) == [
        NotSent(2, "say", None, "given", "lobby", False),
        NotSent(3, "tell", "ben", "given too", "inbox", False),
    ]
    assert session.unanswered(0, 1000)[0].splitlines() == [
        b'{"type":"join","room":"tea","id":3}',
        b'{"type":"say","text":"waits","id":4,"room":"tea"}',
        b'{"type":"say","text":"later","id":5}',
    ]
    assert receive(session, messages.Refused("too_many_rooms", "No.", 3, "inbox", 1)) == [
        Refused(None, "too_many_rooms", "No.")
    ], "the program has not asked to join"


def test_what_a_server_says_that_it_has_not_accepted_waits_too(session: ClientSession) -> None:
    for text in "abc":
        session.say(text, 0, 0)
    session.request(lambda number: FileEnd(1, "done", id=number), 0)
    session.unanswered(0, 1000)
    session.ends_after(1)
    session.forget()
    assert session.in_doubt == (1,)
    assert session.unanswered(0, 1000)[0] == (
        b'{"type":"say","text":"b","id":2}\n{"type":"say","text":"c","id":3}\n'
    ), "and what is about a file has ended with the session"


def test_what_another_one_of_our_name_said_meanwhile_is_not_ours() -> None:
    """Our session ended while we were away, somebody else took the name, and went: then we came back."""
    session = ClientSession("ana", "key")
    session.welcome(messages.Welcome("ana", "a", {"lobby": 4, "inbox": 0}, Limits(), "history"))
    session.forget()
    for text in ("same", "mine"):
        session.say(text, 0, 0)
    session.request(lambda number: messages.SetTopic("mine", number), 0)
    assert session.welcome(messages.Welcome("ana", "b", {"lobby": 8, "inbox": 0}, Limits(), "history"))
    session.following.add("primary")
    session.unanswered(0, 1000)
    for line in (said(5, "ana", 1, "same"), messages.TopicSet("lobby", 6, "ana", "mine", 3)):
        assert kinds(receive(session, line)) in (["Received"], ["TopicSet"])
    (renamed,) = receive(session, messages.Renamed("lobby", 7, "ana", "mallory"))
    assert isinstance(renamed, Renamed)
    assert not renamed.own
    assert (session.nick, session.lost) == ("ana", (1, 2, 3))
    receive(session, messages.Joined("lobby", 8, "ana"))
    assert kinds(receive(session, said(9, "ana", 1, "same"))) == ["Echoed"]
    session.member({"tea": 3}, 0, "primary")
    assert kinds(receive(session, messages.Said("tea", 4, "ana", "another's", 2))) == ["Received"]
    assert session.lost == (2, 3)
    (renamed,) = receive(session, messages.Renamed("tea", 5, "ana", "mallory", 2))
    assert isinstance(renamed, Renamed)
    assert not renamed.own, "2 is no request for a name"
    assert kinds(receive(session, said(10, "mallory", 2, "mine"))) == ["Received"]
    assert kinds(receive(session, said(5, "ana", 1, "same"), "secondary")) == ["ReceivedAgain"]


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


def test_what_waited_for_a_server_that_takes_no_such_lines_is_not_sent(session: ClientSession) -> None:
    session.forget()
    session.join("t" * 300, 0)
    for text in ("short", "x" * 300):
        session.say(text, 0, 0)
    session.welcome(messages.Welcome("Ana", "new", {"lobby": 1, "inbox": 0}, Limits(line_bytes=200)))
    assert session.give_up_unfit(private=False) == [NotSent(3, "say", None, "x" * 300, "lobby", True)]
    assert session.unanswered(0, 1000)[0] == b'{"type":"say","text":"short","id":2}\n'


@pytest.mark.parametrize("history", ["", "history"])
def test_a_private_message_that_waited_does_not_go_to_a_server_that_knows_no_names(history: str) -> None:
    """Whoever is called ben there may be somebody else."""
    session = ClientSession("ana", "key")
    session.welcome(messages.Welcome("ana", "a", {"lobby": 4, "inbox": 0}, Limits(), "history"))
    session.forget()
    session.tell("ben", "the door code is 4711", 0, 0)
    session.say("hello", 0, 0)
    goes_on = session.welcome(messages.Welcome("ana", "b", {"lobby": 4, "inbox": 0}, Limits(), history))
    not_sent = session.give_up_unfit(private=not goes_on)
    lines, _ = session.unanswered(0, 1000)
    if history:
        assert not_sent == []
        assert b"4711" in lines
    else:
        assert not_sent == [NotSent(1, "tell", "ben", "the door code is 4711", "inbox", is_certain=True)]
        assert lines == b'{"type":"say","text":"hello","id":2}\n'


def test_doubts_are_resolved_where_the_logs_go_on() -> None:
    """A journal: the lines that were accepted come again; those that do not were not accepted."""
    session = ClientSession("ana", "key")
    session.welcome(messages.Welcome("ana", "a", {"lobby": 4, "inbox": 0}, Limits(), "history"))
    for text in ("hé", "lost"):
        session.say(text, 0, 0)
    session.unanswered(0, 1000)
    session.forget()
    assert session.welcome(messages.Welcome("ana", "b", {"lobby": 6, "inbox": 0}, Limits(), "history"))
    session.following.add("primary")
    assert session.give_up(rooms=False) == []
    assert session.wants_to_ask
    session.ask()
    assert receive(session, messages.Settled(0, "ana", {"lobby": 6, "inbox": 0})) == []
    assert kinds(receive(session, said(5, "ana", 1))) == ["Echoed"]
    assert receive(session, messages.Joined("lobby", 6, "ana"))[1:] == [NotSent(2, "say", None, "lost", "lobby", True)]


def goes_on(session: ClientSession, lobby: int) -> None:
    session.welcome(messages.Welcome("ana", "t", {"lobby": lobby, "inbox": 0}, Limits(), "history"))
    session.following.add("primary")


@pytest.mark.parametrize("was_in_doubt", [False, True])
def test_a_message_whose_echo_may_have_been_missed_was_perhaps_accepted(was_in_doubt: bool) -> None:
    """Lines were missed before the server went: while the message was under way, or in doubt already."""
    session = ClientSession("ana", "key")
    goes_on(session, 4)
    session.say("hé", 0, 0)
    session.unanswered(0, 1000)
    if was_in_doubt:
        session.forget()
        goes_on(session, 9)
    receive(session, said(8))
    session.forget()
    goes_on(session, 9)
    receive(session, said(9))
    session.ask()
    assert receive(session, messages.Settled(0, "ana", {"lobby": 9, "inbox": 0})) == [
        NotSent(1, "say", None, "hé", "lobby", is_certain=False)
    ]
    session.say("hé", 0, 0)
    session.unanswered(0, 1000)
    session.forget()
    goes_on(session, 9)
    session.ask()
    assert receive(session, messages.Settled(0, "ana", {"lobby": 9, "inbox": 0})) == [
        NotSent(2, "say", None, "hé", "lobby", is_certain=True)
    ], "what was missed before it was said does not matter"


def test_an_answer_that_comes_ahead_waits_for_the_slower_connection(session: ClientSession) -> None:
    assert (session.join("tea", 0), session.say("in tea", 0, 0, "tea")) == (1, 2)
    session.following.add("secondary", 1)
    assert session.member({"tea": 3}, 1, "secondary") == []
    assert receive(session, messages.Settled(2, "Ana", {"lobby": 4, "inbox": 0, "tea": 4}), "secondary") == []
    assert receive(session, messages.Member({"tea": 3}, 1)) == [Entered("tea")]
    assert kinds(receive(session, messages.Said("tea", 4, "Ana", "in tea", 2))) == ["Echoed"]


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


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_gap_is_one_only_if_neither_connection_brings_the_lines(session: ClientSession) -> None:
    session.following.add("secondary")
    assert receive(session, said(8)) == []
    assert kinds(receive(session, said(5), "secondary")) == ["Received"]
    assert receive(session, said(9)) == [], "the other one brings it"
    assert kinds(receive(session, said(8), "secondary")) == ["Gap", "Received"], "it has a gap too"
    assert kinds(receive(session, said(9))) == ["Received"]
    assert session.cursors["lobby"] == 9


def test_a_room_is_left_only_once_its_last_lines_have_come(session: ClientSession) -> None:
    """A connection that is let in late knows at once that we have left; the slow one has still to bring lines."""
    session.following.add("secondary")
    session.join("tea", 0)
    assert session.member({"tea": 3}, 1, "primary") == [Entered("tea")]
    session.leave("tea", 0)
    session.stop_following("secondary")
    session.following.add("secondary", 2)
    assert session.member({}, 2, "secondary") == []
    assert kinds(receive(session, messages.Said("tea", 4, "ben", "x"))) == ["Received"]
    assert receive(session, messages.Member({}, 2)) == [Departed("tea")]
    session.join("tin", 0)
    assert receive(session, messages.Member({"tin": 0}, 3), "secondary") == [Entered("tin")], "it is in step again"


def test_what_a_connection_said_too_early_it_is_asked_again(session: ClientSession) -> None:
    session.join("tea", 0)
    session.following.add("secondary", 1)
    assert session.member({"tea": 3}, 1, "secondary") == []
    assert receive(session, messages.Said("tea", 4, "ben", "x"), "secondary") == []
    assert session.stop_following("primary") == {"secondary"}
    assert receive(session, messages.Member({"tea": 3}, 1), "secondary") == [], "from before it was asked"
    session.following.add("secondary", 1)
    assert session.member({"tea": 3}, 1, "secondary") == [Entered("tea")]


def test_where_both_have_gaps_either_changes_our_rooms(session: ClientSession) -> None:
    session.following.add("secondary")
    assert receive(session, said(7)) == []
    assert receive(session, messages.Refused("x", "No.", None, "inbox", 3), "secondary") == []
    session.join("tea", 0)
    assert receive(session, messages.Member({"tea": 3}, 1)) == [Entered("tea")]


def test_what_the_one_that_is_ahead_brought_of_a_new_room_is_not_waited_for(session: ClientSession) -> None:
    """Else the other one, which has a gap there, would be passed over too, and what both brought would be lost."""
    session.following.add("secondary")
    assert receive(session, said(7)) == [], "the primary has a gap: the secondary is waited for"
    session.join("tea", 0)
    assert receive(session, messages.Member({"tea": 3}, 1)) == [], "it is ahead"
    for seq in (4, 5, 6):
        assert receive(session, messages.Said("tea", seq, "ben", "x")) == []
    assert receive(session, messages.Member({"tea": 3}, 1), "secondary") == [Entered("tea")]
    events = receive(session, messages.Said("tea", 5, "ben", "x"), "secondary")
    assert (events[0], kinds(events[1:])) == (Gap("tea", 1), ["Received"])
    assert kinds(receive(session, messages.Said("tea", 6, "ben", "x"), "secondary")) == ["Received"]
    assert kinds(receive(session, messages.Said("tea", 7, "ben", "x"))) == ["Received"], "in step again, in that room"


def test_who_was_passed_over_in_a_room_is_in_step_when_we_leave_it(session: ClientSession) -> None:
    session.following.add("secondary")
    session.join("tea", 0)
    assert receive(session, messages.Member({"tea": 3}, 1)) == [Entered("tea")]
    assert receive(session, messages.Member({"tea": 3}, 1), "secondary") == []
    assert receive(session, messages.Said("tea", 6, "ben", "x")) == [], "the secondary may bring what is missing"
    session.leave("tea", 0)
    assert receive(session, messages.Member({}, 2), "secondary") == [Departed("tea")]
    session.join("tin", 0)
    assert receive(session, messages.Member({"tin": 1}, 3)) == [Entered("tin")], "nothing is waited for any more"


def test_a_connection_that_was_passed_over_is_asked_again(session: ClientSession) -> None:
    session.following.add("secondary")
    assert receive(session, said(7)) == []
    assert session.stop_following("secondary") == {"primary"}
    assert receive(session, said(8)) == [], "what was under way before it was asked"
    session.following.add("primary")
    assert kinds(receive(session, said(5))) == ["Received"]
    assert session.stop_following("primary") == set()


def test_repr(session: ClientSession) -> None:
    assert repr(ClientSession("x")) == "<ClientSession x not registered, 0 pending, 0 duplicate(s)>"
    assert repr(session) == "<ClientSession Ana registered, 0 pending, 0 duplicate(s)>"
