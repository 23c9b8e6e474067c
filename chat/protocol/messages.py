"""The vocabulary: one Struct per message, one tagged union per direction.

A message is a JSON object with a `type`; fields unknown to the reader are ignored, so that either side may learn new
ones first. What comes from a log carries `log` and `seq` (see :mod:`chat.server.log`).
"""

import msgspec

from chat.protocol.fields import LOBBY, Count, Cursor, Cursors, MessageId, Seconds, Seq, Token
from chat.protocol.filemessages import FileAccept, FileChunk, FileCredit, FileEnd, FileLine, FileOffer
from chat.protocol.limits import Limits
from chat.protocol.message import Message

# Up: client → server.


class Hello(Message, frozen=True):
    """Begin a session under this nickname.

    With a key, a secret of the client's own making, the session outlives its connections for a while, and the same
    hello again is welcomed again: whoever did not hear the first answer can ask once more. The password is the
    server's, if it has one.
    """

    nick: str
    key: str = ""
    password: str = ""


class Attach(Message, frozen=True):
    """Add this connection to a living session, or change what an attached one follows."""

    token: Token
    cursors: Cursors = msgspec.field(default_factory=dict)
    #: False: a stand-by connection, which is sent nothing until it attaches again with True.
    follow: bool = True


class Say(Message, frozen=True):
    """A message to everyone in a room, in which the sender must be."""

    text: str
    id: MessageId | None = None
    room: str = LOBBY


class Tell(Message, frozen=True):
    """A message to one nickname."""

    to: str
    text: str
    id: MessageId | None = None


class Nick(Message, frozen=True):
    """I want to be called this from now on; my former name is kept for me."""

    nick: str
    id: MessageId | None = None


class Join(Message, frozen=True):
    """Let me into a room; it begins to exist with the first who comes.

    With a cursor, from an earlier stay, what was said after it is sent too, as far as the room still has it.
    """

    room: str
    id: MessageId | None = None
    cursor: Cursor | None = None


class Leave(Message, frozen=True):
    """Let me out of a room; it is forgotten with the last who goes."""

    room: str
    id: MessageId | None = None


class Who(Message, frozen=True):
    """Who is in this room?"""

    room: str = LOBBY


class SetTopic(Message, frozen=True, tag="topic"):
    """What a room, in which the sender must be, is about from now on; an empty text: nothing in particular."""

    text: str
    id: MessageId | None = None
    room: str = LOBBY


class Recall(Message, frozen=True, tag="last"):
    """What were the last so many lines of a room, in which the sender must be?"""

    lines: Count
    room: str = LOBBY


class ListRooms(Message, frozen=True, tag="rooms"):
    """Which rooms are there?"""


class Settle(Message, frozen=True):
    """How far have you come with my messages? For one who has missed lines, and perhaps echoes among them."""


class Ping(Message, frozen=True):
    """Are you there? Answered at once, ahead of what waits in the logs."""

    n: MessageId | None = None


# Both directions.


class Bye(Message, frozen=True):
    """Up: end my session. Down: the session is over, and why; the connection closes.

    A server that means to come back says so; what it has not accepted may then be sent to the next one.
    """

    reason: str = ""
    #: After about so long a server will listen here again, which does not know this session.
    back_in_s: Seconds | None = None
    #: Every message of the session up to this id was granted or refused; none above it.
    id: Cursor | None = None


# Down: server → client.


class Welcome(Message, frozen=True):
    """The session has begun. The token lets other connections attach to it: it is a secret.

    Cursors from an earlier session are still good, for the lobby and in `join`, if it had the same `history`.
    """

    nick: str
    token: Token
    cursors: Cursors
    limits: Limits
    history: str = ""


class Attached(Message, frozen=True):
    """This connection belongs to the session; lines after these cursors follow.

    The logs among the cursors are all those that the session follows; `id` as in :class:`Member`.
    """

    nick: str
    cursors: Cursors
    id: Cursor = 0


class Member(Message, frozen=True):
    """The rooms, beside the lobby, in which the session is now, and after which line it came into each.

    It tells what `join` and `leave` have led to, up to the one with this id; it goes ahead of lines from the logs.
    """

    cursors: Cursors
    id: Cursor = 0


class Said(Message, frozen=True):
    """Someone, perhaps you, spoke to everyone in the room after which the log is called."""

    log: str
    seq: Seq
    from_: str = msgspec.field(name="from")
    text: str
    id: MessageId | None = None


class Told(Message, frozen=True):
    """Someone told you something, or you told someone."""

    log: str
    seq: Seq
    from_: str = msgspec.field(name="from")
    to: str
    text: str
    id: MessageId | None = None


class Joined(Message, frozen=True):
    """Someone came into the room."""

    log: str
    seq: Seq
    nick: str


class Renamed(Message, frozen=True):
    """Someone, perhaps you, has another name. In all logs of the session, so that each says from which line on."""

    log: str
    seq: Seq
    nick: str
    to: str
    id: MessageId | None = None


class Left(Message, frozen=True):
    """Someone has left the room."""

    log: str
    seq: Seq
    nick: str
    reason: str


class TopicSet(Message, frozen=True, tag="topic"):
    """Someone, perhaps you, has said what the room is about from now on."""

    log: str
    seq: Seq
    from_: str = msgspec.field(name="from")
    text: str
    id: MessageId | None = None


#: What the log of a room consists of.
RoomLine = Said | Joined | Renamed | Left | TopicSet


class Refused(Message, frozen=True):
    """A request is not granted. Within a session it comes from the inbox log, so that it is not lost either."""

    code: str
    reason: str
    id: MessageId | None = None
    log: str = ""
    seq: Cursor = 0


class Present(Message, frozen=True):
    """The nicknames of all who are in the room, in order of arrival."""

    nicks: list[str]
    room: str = LOBBY
    topic: str = ""


class Recalled(Message, frozen=True, tag="last"):
    """The last lines of a room, oldest first, as they came to those who were there."""

    room: str
    lines: list[RoomLine]


class RoomList(Message, frozen=True, tag="rooms"):
    """All rooms, how many are in each, and the topics of those that have one, as far as there is room for them."""

    rooms: dict[str, Count]
    topics: dict[str, str] = msgspec.field(default_factory=dict)


class Settled(Message, frozen=True):
    """Every message of the session up to this id is granted or refused, in lines up to these cursors.

    The nickname is that after these lines: a change of it may have been among those that were missed.
    """

    id: Cursor
    nick: str
    cursors: Cursors


class Gap(Message, frozen=True):
    """So many lines of this log were dropped before this connection could take them."""

    log: str
    missed: Count


class Pong(Message, frozen=True):
    """Answer to a ping, with its number."""

    n: MessageId | None = None


class Error(Message, frozen=True):
    """The last line could not be read. The connection goes on with the next, or closes if there can be none."""

    code: str
    reason: str


Up = (
    Hello
    | Attach
    | Say
    | Tell
    | Nick
    | Join
    | Leave
    | SetTopic
    | FileOffer
    | FileAccept
    | FileEnd
    | FileChunk
    | FileCredit
    | Who
    | Recall
    | ListRooms
    | Settle
    | Ping
    | Bye
)
Down = (
    Welcome
    | Attached
    | Member
    | Said
    | Told
    | Joined
    | Renamed
    | Left
    | TopicSet
    | Refused
    | FileLine
    | FileChunk
    | FileCredit
    | Present
    | Recalled
    | RoomList
    | Settled
    | Gap
    | Pong
    | Error
    | Bye
)
