"""A relay of files with a sender and a receiver, without a network."""

from sinks import Pipe

from chat.protocol.filemessages import FileAccept, FileChunk, FileCredit, FileOffer
from chat.protocol.limits import Limits
from chat.protocol.message import Message
from chat.server.delivery import Delivery
from chat.server.filerelay import FileRelay
from chat.server.log import Log, MessagesAt
from chat.server.members import Connection, Session

SHA = "0" * 64


class Ledger(Delivery):
    """Writes down what the logs are given."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[Message] = []

    def extend(self, log: Log, messages_at: MessagesAt, *, may_wait: bool = False) -> None:
        self.logged += messages_at(log.name, 1)


class Office:
    """A relay with ana and ben, each with one connection, and what their inboxes were given."""

    def __init__(self, **options: int) -> None:
        self.delivery = Ledger()
        self.logged = self.delivery.logged
        self.relay = FileRelay(Limits(file_window_bytes=100, files=2), self.delivery, **options)
        self.pipes: dict[Connection, Pipe] = {}
        self.ana, self.ben = (Session(nick, "", nick, Log("inbox", max_lines=9, max_bytes=999)) for nick in "ab")
        self.up, self.down = self.attach(self.ana), self.attach(self.ben)

    def attach(self, session: Session) -> Connection:
        pipe = Pipe(self.delivery)
        self.pipes[pipe.connection] = pipe
        session.connections[pipe.connection] = None
        return pipe.connection

    def offer(self, size: int = 10) -> int:
        self.relay.offer(self.ana, self.ben, FileOffer("b", "name", size, SHA))
        return self.logged[-1].file  # type: ignore[attr-defined, no-any-return]

    def accepted(self, size: int = 10) -> int:
        number = self.offer(size)
        self.relay.accept(self.ben, FileAccept(number))
        self.relay.credit(self.ben, self.down, FileCredit(number, 0, again=True))
        return number

    def chunk(self, number: int, offset: int, length: int) -> None:
        self.relay.chunk(self.ana, self.up, FileChunk(number, offset, bytes(length)))

    def taken(self, connection: Connection) -> list[str]:
        """The lines that a connection has to send, which it then has sent."""
        return self.pipes[connection].flush().decode().splitlines()
