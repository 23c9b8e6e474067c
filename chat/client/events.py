"""Events: what happens in the chat, as a program is told it. All times are CLOCK_MONOTONIC in ns."""

from typing import Literal

import msgspec

from chat.protocol.fields import LOBBY
from chat.protocol.filemessages import FileLine

PathName = Literal["primary", "secondary"]
Kind = Literal["say", "tell"]


class _Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events. Structs rather than dataclasses: made in a tenth of the time, thousands of times a second."""


class Registered(_Event, frozen=True):
    """The server knows us under this nickname."""

    nick: str


class Echoed(_Event, frozen=True):
    """A message of our own came back: everybody present will see it."""

    id: int
    kind: Kind
    text_bytes: int
    #: When it was meant to be sent, and when it was.
    intended_ns: int
    sent_ns: int
    #: When the kernel received the first copy of the echo, and when this process read it.
    received_ns: int
    seen_ns: int
    #: Whether `received_ns` is the kernel's for this very line; otherwise it may be somewhat late.
    exact: bool
    path: PathName
    to: str | None
    text: str
    log: str
    seq: int
    #: How many bytes of its connection's stream end with this line; 0 if nobody counted.
    end_byte: int = 0

    @property
    def response_time_ns(self) -> int:
        """From the intended moment to the receipt of the echo: what a user waits, including our own delays."""
        return self.received_ns - self.intended_ns

    @property
    def service_time_ns(self) -> int:
        """From the actual sending to the receipt of the echo."""
        return self.received_ns - self.sent_ns


class EchoMissed(_Event, frozen=True):
    """The server has dealt with this message of ours, but the line that would have said so was dropped before us.

    It was accepted, unless lines of our inbox were dropped too and a refusal was among them.
    """

    id: int


class NotSent(_Event, frozen=True):
    """A message of our own will not come back: the session in which it was said is over, or everything is.

    Each message that was said is told of by one of `Echoed`, `EchoMissed`, `Refused` and this.
    """

    id: int
    kind: Kind
    to: str | None
    text: str
    log: str
    #: True: it was not accepted, nobody has seen it. False: perhaps it was, and the answer did not come.
    is_certain: bool


class EchoedAgain(_Event, frozen=True):
    """Another copy of an echo came: when, beside the first, tells what a second connection is worth.

    Copies are told in the order in which they were read. The kernel may have had this one first.
    """

    id: int
    path: PathName
    received_ns: int
    seen_ns: int
    exact: bool
    end_byte: int


class Received(_Event, frozen=True):
    """Somebody else's message."""

    kind: Kind
    sender: str
    to: str | None
    text: str
    id: int | None
    log: str
    seq: int
    received_ns: int
    seen_ns: int
    exact: bool
    path: PathName
    end_byte: int = 0


class ReceivedAgain(_Event, frozen=True):
    """Another copy of somebody else's message came, like :class:`EchoedAgain`; only of those with an id."""

    sender: str
    id: int
    path: PathName
    received_ns: int
    seen_ns: int
    exact: bool
    end_byte: int


class PeerJoined(_Event, frozen=True):
    """Somebody came into a room."""

    nick: str
    room: str = LOBBY


class Renamed(_Event, frozen=True):
    """Somebody, perhaps we ourselves, has another name. Told once for each log that has both."""

    nick: str
    to: str
    room: str
    own: bool


class TopicSet(_Event, frozen=True):
    """Somebody, perhaps we ourselves, has said what a room is about; an empty text: nothing in particular."""

    nick: str
    text: str
    room: str = LOBBY


class PeerLeft(_Event, frozen=True):
    """Somebody has left a room; everybody leaves the lobby last."""

    nick: str
    reason: str
    room: str = LOBBY


class Entered(_Event, frozen=True):
    """We are in this room now."""

    room: str


class Departed(_Event, frozen=True):
    """We are in this room no longer."""

    room: str


class Present(_Event, frozen=True):
    """Answer to `who`: the nicknames of those who are in the room, and what it is about."""

    nicks: list[str]
    room: str = LOBBY
    topic: str = ""


class Recalled(_Event, frozen=True):
    """Answer to `recall`: the last lines of a room, oldest first."""

    room: str
    lines: "list[Received | PeerJoined | PeerLeft | Renamed | TopicSet]"


class RoomList(_Event, frozen=True):
    """Answer to `rooms`: all rooms, how many are in each, and what they are about."""

    rooms: dict[str, int]
    topics: dict[str, str] = {}


class Refused(_Event, frozen=True):
    """The server does not grant a request: the message with this id, or something without one."""

    id: int | None
    code: str
    reason: str


class Gap(_Event, frozen=True):
    """So many lines of a log were dropped before we could take them; they are lost to us."""

    log: str
    missed: int


class PathUp(_Event, frozen=True):
    """This connection belongs to the session now."""

    path: PathName


class PathDown(_Event, frozen=True):
    """This connection broke; the session goes on over the other one."""

    path: PathName
    #: A sentence.
    reason: str


class Reconnecting(_Event, frozen=True):
    """All connections are gone. New ones are tried; what is said in the meantime waits, and is sent then."""

    #: A sentence.
    reason: str
    #: In how many seconds the server said that it would be back, if it did.
    back_in_s: float | None = None


class Resumed(_Event, frozen=True):
    """After :class:`Reconnecting`: the session goes on where it was, and what was missed follows."""

    path: PathName


class StartedAnew(_Event, frozen=True):
    """After :class:`Reconnecting`: the server knows the session no longer, so that another one has begun."""

    nick: str
    #: Messages that were under way: it is unknown whether they were accepted. In the order they were sent. What waited
    #: for a connection is not among them: it is sent now; but of private messages `NotSent` tells, if the server has
    #: other logs, and so does not know whose the names were.
    in_doubt: tuple[int, ...]
    #: Whether what was said in the meantime is missed. If not, it follows, and with it the echo of those messages in
    #: doubt that were accepted; of the others `NotSent` tells.
    missed: bool = True


class Closed(_Event, frozen=True):
    """The end, always the last event: everything is freed."""

    #: A sentence; or `left` after :meth:`chat.client.client.ChatClient.leave`, `closed` after `close`.
    reason: str
    #: Messages that were neither echoed nor refused, in the order they were sent.
    lost: tuple[int, ...]


class FileNews(_Event, frozen=True):
    """What the inbox says of a file. Not told to the program: the file desk makes it into what follows."""

    line: FileLine
    #: It answers a request of ours.
    own: bool


class _FileEvent(_Event, frozen=True):
    """About one file; all of them begin with the same."""

    #: Our own number for it, from 1.
    id: int
    outgoing: bool
    #: Who sends it to us, or whom we send it to.
    peer: str
    #: As offered by the sender: not to be used as the name of a file.
    name: str
    size_bytes: int
    sha256: str
    #: The server's number for it, the same on both sides; 0 until it has one.
    file: int


class FileOffered(_FileEvent, frozen=True):
    """Somebody would like to send us a file; or our own offer has reached the one it was made to."""


class FileProgress(_FileEvent, frozen=True):
    """So much of it has arrived; told a few times each second."""

    done_bytes: int


class FileDone(_FileEvent, frozen=True):
    """It has arrived, is verified, and stored."""

    #: Where; only the receiver knows.
    path: str | None
    #: Since the receiver accepted it.
    duration_ns: int
    #: What was there already from an earlier attempt, and what the sender had to send more than once; each side knows
    #: only its own.
    kept_bytes: int
    resent_bytes: int

    @property
    def goodput_bps(self) -> float:
        """Bits of the file per second that were received since it was accepted."""
        return (self.size_bytes - self.kept_bytes) * 8e9 / max(1, self.duration_ns)


class FileFailed(_FileEvent, frozen=True):
    """It is over without the file; what was received is kept only where another offer may go on with it."""

    #: `rejected`, `cancelled` or `failed`.
    outcome: str
    #: A sentence.
    reason: str


FileEvent = FileOffered | FileProgress | FileDone | FileFailed

Event = (
    Registered
    | Echoed
    | EchoMissed
    | NotSent
    | EchoedAgain
    | Received
    | ReceivedAgain
    | PeerJoined
    | Renamed
    | PeerLeft
    | TopicSet
    | Entered
    | Departed
    | Present
    | Recalled
    | RoomList
    | Refused
    | Gap
    | PathUp
    | PathDown
    | Reconnecting
    | Resumed
    | StartedAnew
    | Closed
    | FileEvent
)
