"""What two connections bring of one session: whose lines count, and who is waited for. No sockets, no clock."""

from session_helpers import kinds, receive, said

from chat.client.events import (
    Departed,
    Entered,
    Gap,
)
from chat.client.session import ClientSession
from chat.protocol import messages


def test_an_older_membership_changes_nothing(session: ClientSession) -> None:
    assert (session.join("tea", 0), session.leave("tea", 0)) == (1, 2)
    assert receive(session, messages.Member({}, 2)) == []
    assert receive(session, messages.Member({"tea": 5}, 1)) == []
    assert (session.rooms, session.pending) == (["lobby"], 0)


def test_an_answer_that_comes_ahead_waits_for_the_slower_connection(session: ClientSession) -> None:
    assert (session.join("tea", 0), session.say("in tea", 0, 0, "tea")) == (1, 2)
    session.following.add("secondary", 1)
    assert session.member({"tea": 3}, 1, "secondary") == []
    assert receive(session, messages.Settled(2, "Ana", {"lobby": 4, "inbox": 0, "tea": 4}), "secondary") == []
    assert receive(session, messages.Member({"tea": 3}, 1)) == [Entered("tea")]
    assert kinds(receive(session, messages.Said("tea", 4, "Ana", "in tea", 2))) == ["Echoed"]


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
