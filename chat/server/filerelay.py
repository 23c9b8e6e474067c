"""FileRelay: the server's part in file transfers: who sends what to whom, and how far ahead of the receiver.

Offers, acceptances and ends are few and matter: they go through the inboxes of both sides, like private messages.
Chunks and credits go straight from connection to connection; what is lost with one is asked for again by the receiver.
So the server keeps no file, and at most a window of each: a chunk is passed on only in order, once, within the window;
and what the receiver has, or wants again, is not kept any longer, whether or not it was taken.
"""

from collections import defaultdict

from chat.protocol.errors import Refusal
from chat.protocol.fields import Outcome
from chat.protocol.filemessages import (
    FileAccept,
    FileAccepted,
    FileChunk,
    FileCredit,
    FileEnd,
    FileEnded,
    FileOffer,
    FileOffered,
)
from chat.protocol.limits import Limits
from chat.protocol.wire import encode
from chat.server.backlog import Pieces
from chat.server.delivery import Delivery
from chat.server.members import Connection, Session

#: Chunks that the server holds at most, of all transfers together: what receivers that do not read can occupy.
QUEUED_BYTES = 64 << 20


class Transfer:
    """One file on its way; the offsets are the receiver's word, and what was passed on to it."""

    __slots__ = (
        "accepted",
        "confirmed",
        "down",
        "forwarded",
        "number",
        "origin",
        "pieces",
        "receiver",
        "sender",
        "size",
        "up",
    )

    def __init__(self, number: int, sender: Session, receiver: Session, size: int) -> None:
        self.number = number
        self.sender = sender
        #: The address that it was offered from.
        self.origin = _origin(sender)
        self.receiver = receiver
        self.size = size
        self.accepted = False
        self.confirmed = self.forwarded = 0
        #: What was passed on and not yet sent.
        self.pieces = Pieces()
        #: The connections that the sender's last chunk came from, and the receiver's last word where to go on.
        self.up: Connection | None = None
        self.down: Connection | None = None

    def __repr__(self) -> str:
        return f"<Transfer {self.number} {self.sender.nick} → {self.receiver.nick} {self.forwarded}/{self.size} B>"


class FileRelay:
    """All transfers of a hub.

    Args:
        limits: what is allowed.
        delivery: takes lines for inboxes and for connections.
        queued_bytes: chunks that may wait to be sent, of all transfers together.
    """

    def __init__(self, limits: Limits, delivery: Delivery, queued_bytes: int = QUEUED_BYTES) -> None:
        self._limits = limits
        self._delivery = delivery
        #: The chunk or the credit that was passed on last.
        self.passed_on: FileChunk | FileCredit | None = None
        self._last_number = 0
        self._transfers: dict[int, Transfer] = {}
        self._sending: dict[Session, dict[int, Transfer]] = {}
        self._receiving: dict[Session, dict[int, Transfer]] = {}
        #: At least what the connections hold: counted up, and anew when it comes to the limit.
        self._queued = 0
        self._queued_bytes = queued_bytes

    def __repr__(self) -> str:
        return f"<FileRelay {len(self._transfers)} transfer(s)>"

    def offer(self, sender: Session, receiver: Session, offer: FileOffer) -> None:
        """Somebody would like to send somebody a file.

        Raises:
            Refusal: to oneself, or there are too many already.
        """
        if sender is receiver:
            raise Refusal("own_file", "You cannot send a file to yourself.")
        for party, parties in ((sender, self._sending), (receiver, self._receiving)):
            if self._is_full(party, parties) and party is receiver:
                self._take_one_back(receiver, _origin(sender))
            if self._is_full(party, parties):
                raise Refusal("too_many_files", f"{party.nick} has {self._limits.files} transfers open already.")
        self._last_number += 1
        number = self._last_number
        transfer = self._transfers[number] = Transfer(number, sender, receiver, offer.size)
        self._sending.setdefault(sender, {})[number] = transfer
        self._receiving.setdefault(receiver, {})[number] = transfer
        for party in (receiver, sender):
            self._delivery.append(
                party.inbox,
                lambda log, seq: FileOffered(
                    log, seq, sender.nick, receiver.nick, number, offer.name, offer.size, offer.sha256, offer.id
                ),
            )

    def accept(self, receiver: Session, message: FileAccept) -> None:
        """The receiver wants the file.

        Raises:
            Refusal: it has been offered no such file, or the transfer is over.
        """
        transfer = self._of(receiver, message.file)
        if transfer.receiver is not receiver:
            raise Refusal("no_such_file", "Only the receiver can accept a file.")
        transfer.accepted = True
        for party in (transfer.sender, receiver):
            self._delivery.append(
                party.inbox, lambda log, seq: FileAccepted(log, seq, receiver.nick, message.file, message.id)
            )

    def end(self, party: Session, message: FileEnd) -> None:
        """Either side says that it is over.

        Raises:
            Refusal: it has no such transfer, or cannot know that it is done.
        """
        transfer = self._of(party, message.file)
        if message.outcome == "done" and (party is transfer.sender or not transfer.accepted):
            raise Refusal("no_such_file", "Only a receiver who has accepted a file can say that it is done.")
        self._end(transfer, party, message.outcome, message.reason, message.id)

    def chunk(self, sender: Session, way: Connection, chunk: FileChunk) -> None:
        """Pass on what is in order and within the window. Anything about a transfer that is over is too late."""
        transfer = self._transfers.get(chunk.file)
        if transfer is None or transfer.sender is not sender or not transfer.accepted:
            return
        transfer.up = way
        end = chunk.offset + len(chunk.data)
        if end <= transfer.forwarded:
            # Sent again after a break, and known: perhaps the sender has not heard how far we are.
            self._delivery.tell(way, FileCredit(chunk.file, transfer.confirmed))
        elif end > transfer.size:
            self._end(transfer, sender, "failed", "The sender sent more than it had offered.")
        elif chunk.offset <= transfer.forwarded and transfer.down in transfer.receiver.connections:
            if end > transfer.confirmed + self._limits.file_window_bytes:
                self._end(transfer, sender, "failed", "The sender sent more than it was granted.")
            else:
                self._pass_on(transfer, chunk)

    def credit(self, receiver: Session, way: Connection, credit: FileCredit) -> None:
        """Pass on how far the receiver is, if that is news; with `again`, chunks go to this connection from now on."""
        transfer = self._transfers.get(credit.file)
        if transfer is None or transfer.receiver is not receiver or not transfer.accepted:
            return
        offset = min(credit.offset, transfer.size)
        if credit.again:
            self._forget_pieces(transfer)
            transfer.down = way
            transfer.confirmed = transfer.forwarded = offset
        elif offset > transfer.confirmed:
            transfer.confirmed = offset
            # It may have more than what followed its last request: what was on its way before that.
            transfer.forwarded = max(transfer.forwarded, offset)
            transfer.pieces.take_back(offset)
        else:
            return
        up = (
            transfer.up if transfer.up in transfer.sender.connections else next(iter(transfer.sender.connections), None)
        )
        self.passed_on = credit
        if up is not None:
            # A sender that does not read has the last word waiting, and the last `again`; not all there ever were.
            self._delivery.tell_latest(up, (credit.file, credit.again), credit)

    def forget(self, party: Session, reason: str) -> None:
        """The session is over, and with it its transfers."""
        for transfers in (self._sending, self._receiving):
            for transfer in [*transfers.get(party, {}).values()]:
                self._end(transfer, party, "failed", f"{party.nick} has left: {reason}"[:200])

    def clear(self) -> None:
        """All sessions are over."""
        for transfers in (self._transfers, self._sending, self._receiving):
            transfers.clear()

    def _is_full(self, party: Session, parties: dict[Session, dict[int, Transfer]]) -> bool:
        return len(parties.get(party, ())) >= self._limits.files

    def _take_one_back(self, receiver: Session, origin: str) -> None:
        """End the oldest unanswered offer of the address that has made most of them, so that nobody keeps others from
        offering; unless this address would then, with its next one, have more of them.
        """
        offers: defaultdict[str, list[Transfer]] = defaultdict(list)
        for transfer in self._receiving[receiver].values():
            if not transfer.accepted:
                offers[transfer.origin].append(transfer)
        most = max(offers.values(), key=len, default=[])
        if len(most) > len(offers[origin]) + 1:
            self._end(most[0], receiver, "failed", f"It was not answered, and others offer {receiver.nick} files too.")

    def _of(self, party: Session, number: int) -> Transfer:
        transfer = self._transfers.get(number)
        if transfer is None or party not in (transfer.sender, transfer.receiver):
            raise Refusal("no_such_file", f"You have no open transfer {number}.")
        return transfer

    def _end(self, transfer: Transfer, by: Session, outcome: Outcome, reason: str, number: int | None = None) -> None:
        del self._transfers[transfer.number]
        self._forget_pieces(transfer)
        for connection in transfer.sender.connections:
            for again in (True, False):
                self._delivery.take_back(connection, (transfer.number, again))
        for party, transfers in ((transfer.sender, self._sending), (transfer.receiver, self._receiving)):
            del transfers[party][transfer.number]
            if not transfers[party]:
                del transfers[party]
            self._delivery.append(
                party.inbox,
                lambda log, seq: FileEnded(log, seq, by.nick, transfer.number, outcome, reason, number),
            )

    def _pass_on(self, transfer: Transfer, chunk: FileChunk) -> None:
        line, way = encode(chunk), transfer.down
        assert way is not None
        # In base64 a window is a third larger, and each line has a little around its bytes; more than that is a lie.
        if transfer.pieces.size + len(line) > 2 * self._limits.file_window_bytes + self._limits.line_bytes:
            self._end(transfer, transfer.sender, "failed", "The sender sent its file in pieces that are too small.")
            return
        if self._queued + len(line) > self._queued_bytes:
            self._queued = sum(transfer.pieces.size for transfer in self._transfers.values())
        if self._queued + len(line) > self._queued_bytes:
            # Not the one that comes next, whose receiver may be quick: that of which most waits to be taken.
            largest = max(self._transfers.values(), key=lambda each: each.pieces.size)
            self._queued -= largest.pieces.size
            self._end(largest, largest.receiver, "failed", "The server holds too much that nobody takes.")
            if largest is transfer:
                return
        self.passed_on = chunk
        self._queued += len(line)
        transfer.forwarded = chunk.offset + len(chunk.data)
        transfer.pieces.append(line, transfer.forwarded)
        self._delivery.tell_behind(way, transfer.pieces)

    def _forget_pieces(self, transfer: Transfer) -> None:
        transfer.pieces.take_back()
        if transfer.down is not None:
            self._delivery.leave_file(transfer.down, transfer.pieces)


def _origin(sender: Session) -> str:
    return next(iter(sender.connections)).origin
