"""Fields: the types that several messages share, and the names of the two logs that everybody has."""

from typing import Annotated, Literal

import msgspec

#: A message's number, chosen by its sender: positive, rising within a session, exact in every JSON implementation.
MessageId = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
#: For each log, the sequence number of the last line that was seen (0: none).
Cursor = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Cursors = dict[str, Cursor]
#: The number of a file transfer, given by the server, and a place or length within a file.
FileNumber = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
ByteCount = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
#: A name of at most 255 characters; whoever stores the file makes it safe.
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Reason = Annotated[str, msgspec.Meta(max_length=200)]
#: How a transfer ended: complete and verified, not wanted, called off by either side, or impossible to go on with.
Outcome = Literal["done", "rejected", "cancelled", "failed"]

#: The room in which everybody is, and the log of what concerns one session alone.
LOBBY = "lobby"
INBOX = "inbox"
