"""Session, Connection, Room: who is in the chat, over how many ways, and where."""

from collections.abc import Callable
from typing import Protocol

from chat.server.backlog import Backlog
from chat.server.budget import Budget
from chat.server.log import Log
from chat.server.replay import IdWindow

#: Direct lines beyond this mean that the peer asks and does not read the answers.
FULL_BYTES = 65_536

#: Takes bytes, and says how many of them are on their way.
Send = Callable[[bytes], int]


class Sink(Protocol):
    """Where a connection's bytes go: to a socket, as a rule. It keeps no queue."""

    def send(self, data: bytes) -> int:
        """How many of these bytes are on their way."""

    @property
    def raw_send(self) -> Send:
        """The same in as few steps as can be, for a crowd. If it raises `OSError`, none are on their way."""

    def not_sent(self, error: OSError) -> None:
        """What :attr:`raw_send` raised."""

    def want_writable(self) -> None:
        """Have :meth:`chat.server.delivery.Delivery.on_writable` called when more could be sent."""


class Session:
    """A nickname with its private log and its connections."""

    __slots__ = (
        "budget",
        "connections",
        "ids",
        "inbox",
        "key",
        "last_change",
        "looks",
        "names",
        "nick",
        "rooms",
        "token",
    )

    def __init__(self, nick: str, key: str, token: str, inbox: Log) -> None:
        self.nick = nick
        #: All names that it has had, folded, each as it was written last; they are its own until it ends.
        self.names: dict[str, str] = {}
        #: What they look like.
        self.looks: list[str] = []
        #: A hash of its key, or nothing.
        self.key = key
        self.token = token
        self.inbox = inbox
        #: What it may ask for; None: as much as it likes.
        self.budget: Budget | None = None
        self.ids = IdWindow()
        #: The rooms it is in, the lobby first, and the number of the last line before it came into each.
        self.rooms: dict[Room, int] = {}
        #: The id of the last `join` or `leave`.
        self.last_change = 0
        self.connections: dict[Connection, None] = {}

    @property
    def has_begun(self) -> bool:
        """If not, its names wait, since a restart, for who has its key."""
        return bool(self.token)

    @property
    def following(self) -> list["Connection"]:
        """The connections that bring its logs; others stand by."""
        return [connection for connection in self.connections if connection.cursors]

    def __repr__(self) -> str:
        return f"<Session {self.nick} with {len(self.connections)} connection(s)>"


class Connection:
    """One way into a session, or still a stranger."""

    __slots__ = ("backlog", "closing", "cursors", "origin", "session", "sink", "skipped", "wrong_secrets")

    def __init__(self, sink: Sink, origin: str = "") -> None:
        self.sink = sink
        #: The address, or network, that it comes from.
        self.origin = origin
        #: How often it has tried a key, a token or a password that was not right.
        self.wrong_secrets = 0
        self.session: Session | None = None
        #: Nothing more is read from it; once it has been sent everything it is to be closed.
        self.closing = False
        #: The logs that it follows; none if it only stands by. The numbers are out of date unless there is a backlog.
        #: This and what follows is the affair of :class:`chat.server.delivery.Delivery`.
        self.cursors: dict[Log, int] = {}
        #: None while it is at the head of all its logs and has nothing else to be sent.
        self.backlog: Backlog | None = None
        #: Lines that it was too slow for.
        self.skipped = 0

    @property
    def full(self) -> bool:
        """Whether the peer should be read no further until it has read its answers."""
        return self.backlog is not None and self.backlog.direct_bytes > FULL_BYTES

    @property
    def lag(self) -> int:
        """How many lines of its logs it has still to be sent."""
        return sum(log.last_seq - cursor for log, cursor in self.cursors.items()) if self.backlog is not None else 0

    @property
    def lag_bytes(self) -> int:
        """About how long those lines are."""
        return sum(log.bytes_after(cursor) for log, cursor in self.cursors.items()) if self.backlog is not None else 0

    @property
    def bulk_bytes(self) -> int:
        """How much of files waits for it."""
        return self.backlog.bulk_bytes if self.backlog is not None else 0

    def __repr__(self) -> str:
        return f"<Connection of {self.session.nick if self.session else 'a stranger'}, {self.backlog or 'at the head'}>"


class Room:
    """A log that is followed by all who are in it."""

    __slots__ = ("log", "members", "origin", "topic")

    def __init__(self, log: Log, origin: str = "") -> None:
        self.log = log
        #: The address, or network, that it was opened from.
        self.origin = origin
        #: What it is about, if anybody has said so.
        self.topic = ""
        #: In order of arrival.
        self.members: dict[Session, None] = {}

    def __repr__(self) -> str:
        return f"<Room {self.log.name} of {len(self.members)}>"

    @property
    def nicks(self) -> list[str]:
        return [session.nick for session in self.members]
