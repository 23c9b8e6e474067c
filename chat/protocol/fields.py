"""Fields: the types that several messages share, and the names of the two logs that everybody has."""

from typing import Annotated, Literal

import msgspec

#: A message's number, chosen by its sender: positive, rising within a session, exact in every JSON implementation.
MessageId = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
#: The number of a line in its log, and of the last line of a log that was seen (0: none).
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Cursor = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Cursors = dict[str, Cursor]
#: The secret that lets a connection into a session.
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
#: The number of a file transfer, given by the server, and a place or length within a file.
FileNumber = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
ByteCount = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
#: A name of at most 255 characters; whoever stores the file makes it safe.
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
#: `\Z`, since `$` would let a newline follow.
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Reason = Annotated[str, msgspec.Meta(max_length=200)]
#: A limit, or how many there are of something.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
#: How long a server means to be away.
LONGEST_ABSENCE_S = 86_400
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_ABSENCE_S)]
#: How a transfer ended: complete and verified, not wanted, called off by either side, or impossible to go on with.
Outcome = Literal["done", "rejected", "cancelled", "failed"]

#: The room in which everybody is, and the log of what concerns one session alone.
LOBBY = "lobby"
INBOX = "inbox"
