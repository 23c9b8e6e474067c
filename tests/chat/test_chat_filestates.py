"""The two sides of a transfer, its window and its relay, without a network: Files in chat/README.md."""

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sinks import EVERYTHING, Pipe

from chat.client.files.states import CHUNK_BYTES, NAME_BYTES, Incoming, Outgoing, numbered, safe_name
from chat.protocol import messages
from chat.protocol.errors import Refusal
from chat.protocol.filemessages import FileAccept, FileChunk, FileCredit, FileEnd, FileEnded, FileOffer
from chat.protocol.limits import Limits
from chat.protocol.message import Message
from chat.protocol.wire import DOWN, encode
from chat.server.delivery import Delivery
from chat.server.filerelay import FileRelay
from chat.server.log import Log, MessageAt
from chat.server.members import Connection, Session

MS = 1_000_000
SHA = "0" * 64


def test_what_was_sent_twice_says_nothing_of_the_round_trip() -> None:
    """The server answers at once for what it knows; that is no measure of the way to the receiver and back."""
    outgoing = Outgoing(10_000 * CHUNK_BYTES, 10**6)
    outgoing.credit(FileCredit(1, 0, again=True), 0)
    while outgoing.next_piece(0):
        pass
    sent = outgoing.sent
    outgoing.rewind()
    assert outgoing.next_piece(0) == (0, CHUNK_BYTES)
    outgoing.credit(FileCredit(1, sent), 1 * MS)
    for number in range(1, 40):  # round trips of 300 ms, without a queue
        sizes = len(pieces_now(outgoing, 300 * number * MS))
        outgoing.credit(FileCredit(1, outgoing.sent), 300 * (number + 1) * MS)
    assert sizes > 100


def pieces_now(outgoing: Outgoing, now_ns: int) -> list[tuple[int, int]]:
    pieces = []
    while piece := outgoing.next_piece(now_ns):
        pieces.append(piece)
    return pieces


# The sender and the receiver.


def test_the_sender_waits_for_the_first_credit() -> None:
    outgoing = Outgoing(10, 1_000)
    assert outgoing.next_piece(0) is None
    outgoing.credit(FileCredit(1, 4, again=True), 0)
    assert outgoing.next_piece(0) == (4, 6)
    assert outgoing.next_piece(0) is None
    assert repr(outgoing) == "<Outgoing 4/10 B, <DelayWindow 8192 B>>"


def test_what_is_sent_again_is_counted() -> None:
    outgoing = Outgoing(2 * CHUNK_BYTES, 100_000)
    outgoing.credit(FileCredit(1, 0, again=True), 0)
    assert outgoing.next_piece(0) == (0, CHUNK_BYTES)
    outgoing.rewind()
    assert outgoing.next_piece(0) == (0, CHUNK_BYTES)
    assert outgoing.next_piece(0) == (CHUNK_BYTES, CHUNK_BYTES)
    assert outgoing.resent_bytes == CHUNK_BYTES


def test_a_credit_may_be_late_repeated_or_beyond_what_was_sent_again() -> None:
    outgoing = Outgoing(3 * CHUNK_BYTES, 100_000)
    outgoing.credit(FileCredit(1, 0, again=True), 0)
    outgoing.next_piece(0)
    outgoing.next_piece(0)
    outgoing.credit(FileCredit(1, CHUNK_BYTES), 0)
    outgoing.credit(FileCredit(1, CHUNK_BYTES), 0)
    outgoing.credit(FileCredit(1, 0), 0)
    assert outgoing.confirmed == CHUNK_BYTES
    outgoing.rewind()
    outgoing.credit(FileCredit(1, 2 * CHUNK_BYTES), 0)
    assert outgoing.sent == outgoing.confirmed == 2 * CHUNK_BYTES
    outgoing.credit(FileCredit(1, 10**9), 0)
    assert outgoing.confirmed == outgoing.size


def test_the_receiver_takes_only_what_follows_and_asks_once_for_what_is_missing() -> None:
    incoming = Incoming(1, 10, 0)
    assert incoming.begin() == FileCredit(1, 0, again=True)
    assert incoming.chunk(FileChunk(1, 4, b"4567")) == (b"", None)
    assert incoming.chunk(FileChunk(1, 0, b"0123")) == (b"0123", FileCredit(1, 4))
    assert incoming.chunk(FileChunk(1, 8, b"89")) == (b"", FileCredit(1, 4, again=True))
    assert incoming.chunk(FileChunk(1, 9, b"9")) == (b"", None)
    assert incoming.chunk(FileChunk(1, 2, b"2345")) == (b"45", FileCredit(1, 6))
    assert incoming.chunk(FileChunk(1, 0, b"01")) == (b"", FileCredit(1, 6))
    assert not incoming.complete
    assert incoming.chunk(FileChunk(1, 6, b"6789 and more")) == (b"6789", FileCredit(1, 10))
    assert incoming.complete
    assert repr(incoming) == "<Incoming 10/10 B>"


# Names.


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.tar.gz", "a.tar.gz"),
        ("noël.txt", "noël.txt"),
        ("noe\u0308l.txt", "noël.txt"),
        ("nul", "_nul"),
        ("aux .txt", "_aux.txt"),
        ("com1.log", "_com1.log"),
        ("a?b*c.txt", "a_b_c.txt"),
        (" .. ", "file"),
        ("\ud800", "_"),
        ("a." + "b" * 300, ("a." + "b" * 300)[:NAME_BYTES]),
        ("a" * 300 + ".txt", "a" * (NAME_BYTES - 4) + ".txt"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=300))
def test_a_safe_name_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert "/" not in safe
    assert "\\" not in safe
    assert safe.isprintable()
    assert not safe.startswith(".")
    assert 1 <= len(safe.encode()) <= NAME_BYTES
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [("a.txt", 0, "a.txt"), ("a.txt", 2, "a (2).txt"), ("noextension", 1, "noextension (1)")],
)
def test_numbered_names(name: str, number: int, expected: str) -> None:
    assert numbered(name, number) == expected


# The relay.


class Ledger(Delivery):
    """Writes down what the logs are given."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[Message] = []

    def append(self, log: Log, message_at: MessageAt) -> None:
        self.logged.append(message_at(log.name, 1))


class Office:
    """A relay with ana and ben, each with one connection, and what their inboxes were given."""

    def __init__(self, **options: int) -> None:
        self.delivery = Ledger()
        self.logged = self.delivery.logged
        self.relay = FileRelay(Limits(file_window_bytes=100, files=2), self.delivery, **options)
        self.pipes: dict[Connection, Pipe] = {}
        self.ana, self.ben = (Session(nick, "", nick, Log("inbox", max_lines=9, max_bytes=999)) for nick in "ab")
        self.up, self.down = self.attach(self.ana), self.attach(self.ben)

    def attach(self, session: Session) -> Connection:
        pipe = Pipe(self.delivery)
        self.pipes[pipe.connection] = pipe
        session.connections[pipe.connection] = None
        return pipe.connection

    def offer(self, size: int = 10) -> int:
        self.relay.offer(self.ana, self.ben, FileOffer("b", "name", size, SHA))
        return self.logged[-1].file  # type: ignore[attr-defined, no-any-return]

    def accepted(self, size: int = 10) -> int:
        number = self.offer(size)
        self.relay.accept(self.ben, FileAccept(number))
        self.relay.credit(self.ben, self.down, FileCredit(number, 0, again=True))
        return number

    def chunk(self, number: int, offset: int, length: int) -> None:
        self.relay.chunk(self.ana, self.up, FileChunk(number, offset, bytes(length)))

    def taken(self, connection: Connection) -> list[str]:
        """The lines that a connection has to send, which it then has sent."""
        return self.pipes[connection].flush().decode().splitlines()


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
    assert (ended.file, ended.reason) == (second, "The server holds too much that nobody takes.")


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


# All of it together.


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40 * CHUNK_BYTES),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), max_size=8),
    st.integers(0, 10**6),
)
def test_whatever_breaks_the_file_arrives(size: int, breaks: list[tuple[int, str]], seed: int) -> None:
    """Connections of either side break at any time with all that is on them; copies come late, in any interleaving."""
    content = bytes(index * 7 % 251 for index in range(size))
    office = Office()
    office.relay._limits = Limits()
    number = office.accepted(size)
    outgoing, incoming = Outgoing(size, 10**6), Incoming(number, size, 0)
    received = bytearray()
    to_ana: deque[Message] = deque([FileCredit(number, 0, again=True)])
    to_ben: deque[Message] = deque()
    old: list[FileChunk] = []
    rng = random.Random(seed)
    now_ns = 0

    def pull(connection: Connection, queue: "deque[Message]") -> None:
        queue.extend(courier_lines(office, connection))

    def pump() -> None:
        while piece := outgoing.next_piece(now_ns):
            office.relay.chunk(office.ana, office.up, FileChunk(number, piece[0], content[piece[0] : sum(piece)]))

    for step in range(2_000):
        now_ns += MS
        for _, side in [each for each in breaks if each[0] == step]:
            if side == "a":
                to_ana.clear()
                del office.ana.connections[office.up]
                office.up = office.attach(office.ana)
                outgoing.rewind()
            else:
                old += [each for each in to_ben if isinstance(each, FileChunk)][:3]
                to_ben.clear()
                del office.ben.connections[office.down]
                office.down = office.attach(office.ben)
                office.relay.credit(office.ben, office.down, incoming.begin())
        pump()
        pull(office.up, to_ana)
        pull(office.down, to_ben)
        for _ in range(rng.randint(1, 4)):
            chunk = old.pop() if old and rng.random() < 0.3 else to_ben.popleft() if to_ben else None
            if isinstance(chunk, FileChunk):
                new, credit = incoming.chunk(chunk)
                received += new
                if credit is not None:
                    office.relay.credit(office.ben, office.down, credit)
            if to_ana:
                credit_up = to_ana.popleft()
                assert isinstance(credit_up, FileCredit)
                outgoing.credit(credit_up, now_ns)
        if incoming.complete and step > 60:
            break
    assert received == content


def courier_lines(office: Office, connection: Connection) -> list[Message]:
    return [DOWN.decode(line) for line in office.taken(connection)]
