"""What becomes of what was said when its echo, or the session, is lost. No sockets, no clock."""

import pytest
from session_helpers import kinds, receive, said

from chat.client.events import (
    Echoed,
    EchoMissed,
    Gap,
    NotSent,
    Refused,
    Renamed,
)
from chat.client.session import ClientSession
from chat.protocol import messages
from chat.protocol.filemessages import FileEnd
from chat.protocol.limits import Limits


def test_an_echo_that_fell_into_a_gap_is_settled(session: ClientSession) -> None:
    """The answer overtakes lines of the log: only when these have come is it clear that the echo will not."""
    session.say("x", 0, 0)
    session.say("y", 0, 0)
    assert not session.wants_to_ask
    assert receive(session, messages.Said("lobby", 7, "ben", "z"))[0] == Gap("lobby", 2)
    assert session.wants_to_ask
    assert session.ask() == b'{"type":"settle"}\n'
    assert not session.wants_to_ask
    assert receive(session, messages.Settled(2, "Ana", {"lobby": 8, "inbox": 0})) == []
    (echo,) = [
        event for event in receive(session, messages.Said("lobby", 8, "Ana", "y", 2)) if isinstance(event, Echoed)
    ]
    assert echo.id == 2
    assert session.pending == 0


def test_a_question_that_was_lost_is_asked_again(session: ClientSession) -> None:
    session.say("x", 0, 0)
    receive(session, messages.Said("lobby", 7, "ben", "z"))
    session.ask()
    session.stop_following("primary")
    assert session.wants_to_ask
    session.unanswered(0, 1000)
    session.forget()
    assert session.in_doubt == (1,)
    assert not session.wants_to_ask


def test_a_name_that_was_changed_after_the_answer_is_kept(session: ClientSession) -> None:
    session.say("x", 0, 0)
    receive(session, messages.Said("lobby", 7, "ben", "z"))
    session.ask()
    assert receive(session, messages.Settled(1, "Ana", {"lobby": 8, "inbox": 2})) == []
    (renamed,) = receive(session, messages.Renamed("lobby", 8, "Ana", "Anna"))
    assert renamed == Renamed("Ana", "Anna", "lobby", own=True)
    receive(session, messages.Said("lobby", 9, "ben", "z"))
    receive(session, messages.Refused("x", "No.", None, "inbox", 1))
    *_, missed = receive(session, messages.Refused("x", "No.", None, "inbox", 2))
    assert missed == EchoMissed(1)
    assert session.nick == "Anna"


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
