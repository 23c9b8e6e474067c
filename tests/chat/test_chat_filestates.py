"""The two sides of a transfer, and its window, without a network: Files in chat/README.md."""

from chat.client.files.states import CHUNK_BYTES, Incoming, Outgoing
from chat.protocol.filemessages import FileChunk, FileCredit

MS = 1_000_000


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
