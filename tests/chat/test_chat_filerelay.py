"""What a server passes on of a file, and what it keeps: Files in chat/README.md."""

import pytest
from hub_helpers import Hall
from office import SHA, Office
from sinks import EVERYTHING

from chat.protocol import messages
from chat.protocol.errors import Refusal
from chat.protocol.filemessages import FileAccept, FileChunk, FileCredit, FileEnd, FileEnded, FileOffer
from chat.protocol.limits import Limits
from chat.protocol.wire import encode
from chat.server.members import Connection, Session


@pytest.fixture
def office() -> Office:
    return Office()


def test_chunks_go_down_and_credits_up(office: Office) -> None:
    number = office.accepted()
    assert office.taken(office.up) == ['{"type":"file_credit","file":1,"offset":0,"again":true}']
    office.chunk(number, 0, 4)
    assert office.taken(office.down) == ['{"type":"file_chunk","file":1,"offset":0,"data":"AAAAAA=="}']
    office.relay.credit(office.ben, office.down, FileCredit(number, 4))
    assert office.taken(office.up) == ['{"type":"file_credit","file":1,"offset":4}']
    assert repr(office.relay) == "<FileRelay 1 transfer(s)>"
    assert repr(office.relay._transfers[number]) == "<Transfer 1 a → b 4/10 B>"


def test_what_is_out_of_order_or_known_is_not_passed_on(office: Office) -> None:
    number = office.accepted()
    office.taken(office.up)
    office.chunk(number, 4, 4)
    assert office.taken(office.down) == []
    office.chunk(number, 0, 4)
    office.chunk(number, 0, 4)
    assert len(office.taken(office.down)) == 1
    assert office.taken(office.up) == ['{"type":"file_credit","file":1,"offset":0}']
    office.relay.credit(office.ben, office.down, FileCredit(number, 8))
    office.chunk(number, 4, 4)
    assert office.taken(office.down) == []


def test_a_new_connection_of_the_receiver_gets_what_the_old_one_lost(office: Office) -> None:
    number = office.accepted()
    office.chunk(number, 0, 4)
    del office.ben.connections[office.down]
    office.chunk(number, 4, 4)
    again = office.attach(office.ben)
    office.relay.credit(office.ben, again, FileCredit(number, 0, again=True))
    office.chunk(number, 0, 4)
    office.chunk(number, 4, 4)
    assert len(office.taken(again)) == 2


def test_credits_find_the_sender_wherever_it_is(office: Office) -> None:
    number = office.accepted()
    office.chunk(number, 0, 4)
    office.taken(office.up)
    del office.ana.connections[office.up]
    office.relay.credit(office.ben, office.down, FileCredit(number, 4))  # there is nobody to be told
    other = office.up = office.attach(office.ana)
    office.chunk(number, 0, 4)  # which the receiver has: the answer is how far it is
    assert office.taken(other) == ['{"type":"file_credit","file":1,"offset":4}']
    office.relay.credit(office.ben, office.down, FileCredit(number, 5))
    assert office.taken(other) == ['{"type":"file_credit","file":1,"offset":5}']


@pytest.mark.parametrize(
    ("offset", "length", "reason"),
    [(0, 11, "more than it had offered"), (0, 101, "more than it was granted")],
)
def test_a_sender_that_sends_too_much(office: Office, offset: int, length: int, reason: str) -> None:
    number = office.accepted(size=10 if "offered" in reason else 1_000)
    office.chunk(number, offset, length)
    for message in office.logged[-2:]:
        assert isinstance(message, FileEnded)
        assert reason in message.reason
    office.chunk(number, 0, 4)
    assert office.taken(office.down) == []


def test_what_nobody_takes_is_bounded() -> None:
    office = Office(queued_bytes=300)
    first = office.accepted(1_000)
    office.chunk(first, 0, 90)
    assert office.taken(office.down)
    office.relay.credit(office.ben, office.down, FileCredit(first, 90))
    office.chunk(first, 90, 90)  # there is room: what was counted has been taken
    second = office.accepted(1_000)
    office.chunk(second, 0, 90)
    ended = office.logged[-1]
    assert isinstance(ended, FileEnded)
    reason = "The server holds too much that nobody takes."
    assert (ended.file, ended.reason) == (first, reason), "not the one that comes next: that which holds most"
    assert any(f'"file":{second},"offset":0' in line for line in office.taken(office.down))


def test_credits_that_nobody_takes_replace_each_other(office: Office) -> None:
    """A sender that reads nothing owes no memory to what its receiver says; the last word is not lost."""
    number = office.accepted(1_000)
    office.pipes[office.up].room = 0
    for offset in range(900):
        for _ in range(3):
            office.relay.credit(office.ben, office.down, FileCredit(number, offset))
        office.delivery.flush()
    office.relay.credit(office.ben, office.down, FileCredit(number, 700, again=True))
    office.relay.credit(office.ben, office.down, FileCredit(number, 650))
    office.relay.credit(office.ben, office.down, FileCredit(number, 800))
    assert office.up.backlog is not None
    assert office.up.backlog.direct_bytes < 200
    office.pipes[office.up].room = EVERYTHING
    office.delivery.on_writable(office.up)
    assert office.taken(office.up)[-2:] == [
        '{"type":"file_credit","file":1,"offset":700,"again":true}',
        '{"type":"file_credit","file":1,"offset":800}',
    ]


def test_a_credit_that_says_nothing_new_is_not_passed_on(office: Office) -> None:
    number = office.accepted()
    office.relay.credit(office.ben, office.down, FileCredit(number, 4))
    assert len(office.taken(office.up)) == 2
    for offset in (0, 4):
        office.relay.credit(office.ben, office.down, FileCredit(number, offset))
    assert not office.delivery.dirty


@pytest.mark.parametrize("again", [True, False])
def test_what_the_receiver_claims_to_have_or_wants_again_is_not_kept(office: Office, again: bool) -> None:
    """However often it says so: at most a window of each transfer waits for it."""
    number = office.accepted(9_000)
    office.pipes[office.down].room = 0
    for part in range(80):
        offset = 0 if again else part * 100
        office.relay.credit(office.ben, office.down, FileCredit(number, offset, again=again))
        office.chunk(number, offset, 100)
        office.delivery.flush()
        assert office.down.bulk_bytes < 300
    office.relay.end(office.ben, FileEnd(number, "cancelled"))
    assert office.down.bulk_bytes == 0


def test_a_window_in_tiny_pieces_is_not_kept(office: Office) -> None:
    office.relay._limits = Limits(file_window_bytes=10_000)
    number = office.accepted(9_000)
    office.pipes[office.down].room = 0
    for offset in range(2_000):
        office.chunk(number, offset, 1)
        assert office.down.bulk_bytes < 2 * 10_000 + Limits().line_bytes
    ended = office.logged[-1]
    assert isinstance(ended, FileEnded)
    assert ended.reason == "The sender sent its file in pieces that are too small."


def test_who_may_say_what(office: Office) -> None:
    number = office.offer()
    stranger = Session("c", "", "c", office.ana.inbox)
    for forbidden in (
        lambda: office.relay.offer(office.ana, office.ana, FileOffer("a", "name", 1, SHA)),
        lambda: office.relay.accept(office.ana, FileAccept(number)),
        lambda: office.relay.accept(stranger, FileAccept(number)),
        lambda: office.relay.accept(office.ben, FileAccept(number + 1)),
        lambda: office.relay.end(office.ben, FileEnd(number, "done")),
        lambda: office.relay.end(office.ana, FileEnd(number, "done")),
    ):
        with pytest.raises(Refusal):
            forbidden()
    # Before it is accepted, and from the wrong side, chunks and credits mean nothing.
    office.chunk(number, 0, 4)
    office.relay.credit(office.ben, office.down, FileCredit(number, 0))
    office.relay.accept(office.ben, FileAccept(number))
    office.relay.credit(office.ana, office.up, FileCredit(number, 0))
    office.relay.chunk(office.ben, office.down, FileChunk(number, 0, b"1"))
    assert not office.delivery.dirty
    office.relay.end(office.ben, FileEnd(number, "done"))
    assert not office.relay._sending
    assert not office.relay._receiving


def test_transfers_are_bounded_and_end_with_their_session(office: Office) -> None:
    office.offer()
    office.offer()
    with pytest.raises(Refusal, match="a has 2 transfers open"):
        office.offer()
    office.relay.forget(office.ben, "said bye")
    ended = office.logged[-1]
    assert isinstance(ended, FileEnded)
    assert (ended.outcome, ended.reason) == ("failed", "b has left: said bye")
    assert repr(office.relay) == "<FileRelay 0 transfer(s)>"
    office.offer()
    office.relay.clear()
    assert repr(office.relay) == "<FileRelay 0 transfer(s)>"


def test_a_chunk_that_was_begun_is_ended_before_what_overtakes_the_others(office: Office) -> None:
    """Backlog: pieces of files wait until there is nothing else, but a line is never torn."""
    number = office.accepted()
    office.taken(office.up)
    office.chunk(number, 0, 4)
    office.chunk(number, 4, 4)
    pipe = office.pipes[office.down]
    pipe.room = 5
    office.delivery.flush()
    first, second = pipe.sends[-1].splitlines(keepends=True)
    office.delivery.tell(office.down, messages.Pong())
    begun = pipe.read()
    pipe.room = EVERYTHING
    assert begun + pipe.flush() == first + encode(messages.Pong()) + second
    pipe.room = 5
    office.chunk(number, 8, 1)
    office.delivery.flush()
    office.chunk(number, 9, 1)
    office.delivery.finish(office.down, b"bye\n")
    begun, pipe.room = pipe.read(), EVERYTHING
    found = begun + pipe.flush()
    assert found.count(b"\n") == 2, "what was begun and the last line; no more of the file"
    assert found.endswith(b"}\nbye\n")


def test_who_is_offered_too_much_has_room_for_others() -> None:
    """Unanswered offers of one address, however many come with them, keep nobody else's out."""
    hall = Hall(limits=Limits(files=3))
    ana = hall.join("ana")
    pests, ben, cleo = [hall.join(f"pest{number}") for number in range(2)], hall.join("ben"), hall.join("cleo")
    for connection, origin in zip((*pests, ben, cleo), ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"), strict=True):
        connection.origin = origin

    def offered_by(sender: Connection) -> list[str]:
        hall.hub.receive(sender, FileOffer("ana", "name", 10, SHA))
        hall.take(sender)
        return [f"{line['type']} {line['file']}" for line in hall.take(ana) if "file" in line]

    assert [offered_by(pest) for pest in (*pests, pests[0])] == [
        ["file_offered 1"],
        ["file_offered 2"],
        ["file_offered 3"],
    ]
    assert offered_by(ben) == ["file_ended 1", "file_offered 4"]
    assert offered_by(cleo) == [], "one more of the others' would leave them with fewer"
    assert offered_by(pests[1]) == []
    hall.hub.receive(ana, FileAccept(2))
    hall.hub.receive(ana, FileAccept(3))
    hall.take(ana)
    assert offered_by(cleo) == [], "what was accepted is not taken back"


def test_who_may_send_no_more_takes_nobodys_place() -> None:
    hall = Hall(limits=Limits(files=2))
    ana, pest, ben = hall.join("ana"), hall.join("pest"), hall.join("ben")
    hall.join("cleo")
    ben.origin = "10.0.0.2"
    for sender, to in ((pest, "ana"), (pest, "ana"), (ben, "cleo"), (ben, "cleo")):
        hall.hub.receive(sender, FileOffer(to, "name", 10, SHA))
    hall.take(ana)
    hall.hub.receive(ben, FileOffer("ana", "name", 10, SHA))
    assert hall.take(ana) == []
    assert hall.take(ben)[-1]["reason"] == "ben has 2 transfers open already."
