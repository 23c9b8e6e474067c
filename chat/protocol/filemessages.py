"""The vocabulary of files: one offers, the other accepts; then chunks go one way, and credits the other."""

import msgspec

from chat.protocol.fields import ByteCount, FileName, FileNumber, MessageId, Outcome, Reason, Seq, Sha256
from chat.protocol.message import Message

# Up: client → server.


class FileOffer(Message, frozen=True, tag="file_offer"):
    """I would like to send somebody this file."""

    to: str
    name: FileName
    size: ByteCount
    sha256: Sha256
    id: MessageId | None = None


class FileAccept(Message, frozen=True, tag="file_accept"):
    """I want this file; the first `file_credit` says from where on."""

    file: FileNumber
    id: MessageId | None = None


class FileEnd(Message, frozen=True, tag="file_end"):
    """This transfer is over: either side may say so at any time, but only the receiver that it is `done`."""

    file: FileNumber
    outcome: Outcome
    reason: Reason = ""
    id: MessageId | None = None


# Both directions.


class FileChunk(Message, frozen=True, tag="file_chunk"):
    """Some bytes of a file. Passed on to the connection that the receiver's last credit came from."""

    file: FileNumber
    offset: ByteCount
    #: Base64 in JSON.
    data: bytes


class FileCredit(Message, frozen=True, tag="file_credit"):
    """The receiver has everything before this offset, so that as much as a window may follow after it."""

    file: FileNumber
    offset: ByteCount
    #: What was sent after the offset is lost: go on from there.
    again: bool = False


# Down: server → client.


class FileOffered(Message, frozen=True, tag="file_offered"):
    """Somebody would like to send you a file, or you somebody. The transfer has a number now."""

    log: str
    seq: Seq
    from_: str = msgspec.field(name="from")
    to: str
    file: FileNumber
    name: FileName
    size: ByteCount
    sha256: Sha256
    id: MessageId | None = None


class FileAccepted(Message, frozen=True, tag="file_accepted"):
    """The receiver wants the file."""

    log: str
    seq: Seq
    from_: str = msgspec.field(name="from")
    file: FileNumber
    id: MessageId | None = None


class FileEnded(Message, frozen=True, tag="file_ended"):
    """A transfer is over, because of whom, and why."""

    log: str
    seq: Seq
    from_: str = msgspec.field(name="from")
    file: FileNumber
    outcome: Outcome
    reason: Reason = ""
    id: MessageId | None = None


#: What an inbox says of files.
FileLine = FileOffered | FileAccepted | FileEnded
