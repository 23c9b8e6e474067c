"""Session, Connection, Room: who is in the chat, over how many ways, and where."""

from chat.server.log import Log
from chat.server.outbox import Outbox
from chat.server.replay import IdWindow


class Session:
    """A nickname with its private log and its connections."""

    def __init__(self, nick: str, key: str, token: str, inbox: Log) -> None:
        self.nick = nick
        #: All names that it has had, folded; they are its own until it ends.
        self.names: list[str] = []
        #: What they look like.
        self.looks: list[str] = []
        self.key = key
        self.token = token
        self.inbox = inbox
        self.ids = IdWindow()
        #: The rooms it is in, the lobby first, and the number of the last line before it came into each.
        self.rooms: dict[Room, int] = {}
        #: The id of the last `join` or `leave`.
        self.last_change = 0
        self.connections: dict[Connection, None] = {}

    @property
    def following(self) -> list["Connection"]:
        """The connections that bring its logs; others stand by."""
        return [connection for connection in self.connections if connection.outbox.logs]

    def __repr__(self) -> str:
        return f"<Session {self.nick} with {len(self.connections)} connection(s)>"


class Connection:
    """One way into a session, or still a stranger."""

    __slots__ = ("closing", "outbox", "session")

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.session: Session | None = None
        #: Nothing more is read from it; once its outbox is empty it is to be closed.
        self.closing = False

    def __repr__(self) -> str:
        return f"<Connection of {self.session.nick if self.session else 'a stranger'}, {self.outbox!r}>"


class Room:
    """A log that is followed by all who are in it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        #: In order of arrival.
        self.members: dict[Session, None] = {}

    def __repr__(self) -> str:
        return f"<Room {self.log.name} of {len(self.members)}>"

    @property
    def nicks(self) -> list[str]:
        return [session.nick for session in self.members]
