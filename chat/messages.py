"""The vocabulary: one Struct per message, one tagged union per direction.

A message is a JSON object with a `type`; fields unknown to the reader are ignored, so that either side may learn new
ones first. What comes from a log carries `log` and `seq` (see :mod:`chat.log`).
"""

from typing import Annotated

import msgspec

#: A message's number, chosen by its sender: positive, rising within a session, exact in every JSON implementation.
MessageId = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
#: For each log, the sequence number of the last line that was seen (0: none).
Cursors = dict[str, Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="type", tag=str.lower):
    """Base of all messages; the type on the wire is the class name in lower case."""


# Up: client → server.


class Hello(Message, frozen=True):
    """Begin a session under this nickname.

    With a key, a secret of the client's own making, the session outlives its connections for a while, and the same
    hello again is welcomed again: whoever did not hear the first answer can ask once more.
    """

    nick: str
    key: str = ""


class Attach(Message, frozen=True):
    """Add this connection to a living session, or change what an attached one follows."""

    token: str
    cursors: Cursors = {}
    #: False: a stand-by connection, which is sent nothing until it attaches again with True.
    follow: bool = True


class Say(Message, frozen=True):
    """A message to everyone."""

    text: str
    id: MessageId | None = None


class Tell(Message, frozen=True):
    """A message to one nickname."""

    to: str
    text: str
    id: MessageId | None = None


class Who(Message, frozen=True):
    """Who is present?"""


class Ping(Message, frozen=True):
    """Are you there? Answered at once, ahead of what waits in the logs."""

    n: MessageId | None = None


# Both directions.


class Bye(Message, frozen=True):
    """Up: end my session. Down: the session is over, and why; the connection closes."""

    reason: str = ""


# Down: server → client.


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What this server accepts."""

    #: Longest line a client may send, without its newline.
    line_bytes: int = 65_536
    #: Longest text, as UTF-8. Escaped in JSON it may grow sixfold and must still fit in a line.
    text_bytes: int = 8_192
    #: Longest nickname, in characters.
    nick_chars: int = 32


class Welcome(Message, frozen=True):
    """The session has begun. The token lets other connections attach to it: it is a secret."""

    nick: str
    token: str
    cursors: Cursors
    limits: Limits


class Attached(Message, frozen=True):
    """This connection belongs to the session; lines after these cursors follow."""

    nick: str
    cursors: Cursors


class Said(Message, frozen=True):
    """Someone, perhaps you, spoke to everyone."""

    log: str
    seq: int
    from_: str = msgspec.field(name="from")
    text: str
    id: int | None = None


class Told(Message, frozen=True):
    """Someone told you something, or you told someone."""

    log: str
    seq: int
    from_: str = msgspec.field(name="from")
    to: str
    text: str
    id: int | None = None


class Joined(Message, frozen=True):
    """Someone came."""

    log: str
    seq: int
    nick: str


class Left(Message, frozen=True):
    """Someone is gone."""

    log: str
    seq: int
    nick: str
    reason: str


class Refused(Message, frozen=True):
    """A request is not granted. Within a session it comes from the inbox log, so that it is not lost either."""

    code: str
    reason: str
    id: int | None = None
    log: str = ""
    seq: int = 0


class Present(Message, frozen=True):
    """The nicknames of all sessions, in order of arrival."""

    nicks: list[str]


class Gap(Message, frozen=True):
    """So many lines of this log were dropped before this connection could take them."""

    log: str
    missed: int


class Pong(Message, frozen=True):
    """Answer to a ping, with its number."""

    n: int | None = None


class Error(Message, frozen=True):
    """The last line could not be read. The connection goes on with the next, or closes if there can be none."""

    code: str
    reason: str


Up = Hello | Attach | Say | Tell | Who | Ping | Bye
Down = Welcome | Attached | Said | Told | Joined | Left | Refused | Present | Gap | Pong | Error | Bye
