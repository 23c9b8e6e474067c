"""Session and Connection: who is in the chat, and over how many ways."""

from chat.idwindow import IdWindow
from chat.log import Log
from chat.outbox import Outbox


class Session:
    """A nickname with its private log and its connections."""

    def __init__(self, nick: str, key: str, token: str, inbox: Log) -> None:
        self.nick = nick
        self.key = key
        self.token = token
        self.inbox = inbox
        self.ids = IdWindow()
        self.connections: dict[Connection, None] = {}

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
