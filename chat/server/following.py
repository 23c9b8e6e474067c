"""Following: which connection follows which log, and who has something new to be sent."""

from collections.abc import Iterable

from chat.protocol.messages import Message
from chat.protocol.wire import encode
from chat.server.log import Log
from chat.server.members import Connection


class Keeper:
    """Is told what becomes of logs, and keeps nothing; a journal does better."""

    def keep(self, log: Log, line: bytes) -> None:
        """This line was just appended to the log."""

    def forget(self, log: Log) -> None:
        """The log is there no more."""


class Following:
    """Lines go into logs here, and connections are followed up."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        #: Those who have room for what is new in each log.
        self._followers: dict[Log, dict[Connection, None]] = {}
        self._grown: dict[Log, None] = {}
        self._told: dict[Connection, None] = {}

    def __repr__(self) -> str:
        return f"<Following {len(self._followers)} log(s)>"

    def open(self, log: Log) -> None:
        """The log may be followed from now on."""
        self._followers[log] = {}

    def close(self, log: Log) -> None:
        """Nobody follows the log any more."""
        del self._followers[log]
        self._keeper.forget(log)

    def hold(self, connection: Connection) -> None:
        """The connection takes nothing just now: however its logs grow, that costs nothing until :meth:`unhold`."""
        self.drop(connection, connection.outbox.logs)

    def unhold(self, connection: Connection) -> None:
        """The connection has taken everything."""
        for log in connection.outbox.logs:
            self._followers[log][connection] = None

    def follow(self, connection: Connection, log: Log, cursor: int) -> None:
        """Send the log's lines after the cursor over this connection."""
        connection.outbox.follow(log, cursor)
        self._followers[log][connection] = None

    def leave(self, log: Log, connections: Iterable[Connection]) -> None:
        """Send no more of it, but for what the log holds now."""
        for connection in [*connections]:
            connection.outbox.leave(log)
            self._followers[log].pop(connection, None)

    def drop(self, connection: Connection, logs: Iterable[Log]) -> None:
        """Look at the connection no more when these logs grow."""
        for log in logs:
            self._followers[log].pop(connection, None)

    def append(self, log: Log, message: Message) -> None:
        """Add a message that was made with the number `last_seq + 1`."""
        line = encode(message)
        log.append(line)
        self._grown[log] = None
        self._keeper.keep(log, line)

    def tell(self, connection: Connection, message: Message) -> None:
        """Send a line to this connection alone."""
        connection.outbox.tell(encode(message))
        self._told[connection] = None

    def look_at(self, connection: Connection) -> None:
        """Something about the connection has changed."""
        self._told[connection] = None

    def take_ready(self) -> Iterable[Connection]:
        """The connections with something new since the last call."""
        ready = self._told
        for log in self._grown:
            ready |= self._followers.get(log, {})
        self._told, self._grown = {}, {}
        return ready
