"""What the tests of the chat's server connect to a hub instead of a socket: a buffer with bounded room."""

from chat.protocol.messages import Down
from chat.protocol.wire import DOWN, BadLine, LineReader
from chat.server.delivery import Delivery
from chat.server.members import Connection

EVERYTHING = 1 << 40


class Pipe:
    """The way out of one connection, with room for so many bytes until they are read, as a socket's buffer has."""

    def __init__(self, delivery: Delivery, room: int = EVERYTHING) -> None:
        self.connection = Connection(self)
        self.room = room
        self.unread = b""
        #: The objects that were sent, whole or in part.
        self.sends: list[bytes] = []
        self.wants_writable = False
        self._delivery = delivery
        self._reader: LineReader[Down] = LineReader(DOWN, 1 << 20)

    def send(self, data: bytes) -> int:
        taken = data[: max(0, self.room - len(self.unread))]
        self.unread += taken
        self.sends.append(data)
        return len(taken)

    def raw_send(self, data: bytes) -> int:
        taken = self.send(data)
        if data and not taken:
            raise BlockingIOError
        return taken

    def not_sent(self, error: OSError) -> None:
        assert isinstance(error, BlockingIOError)

    def want_writable(self) -> None:
        self.wants_writable = True

    def read(self, size: int = EVERYTHING) -> bytes:
        """So many bytes that were sent; where they were, there is room then."""
        data, self.unread = self.unread[:size], self.unread[size:]
        if data and self.wants_writable:
            self.wants_writable = False
            self._delivery.on_writable(self.connection)
        return data

    def flush(self) -> bytes:
        """What is sent at the end of this turn and those after it, if everything is read."""
        found = b""
        self._delivery.hurry()
        while self._delivery.dirty or self.unread:
            self._delivery.flush()
            found += self.read()
        return found

    def messages(self, size: int = EVERYTHING) -> list[Down]:
        """The messages that so many bytes complete."""
        found = self._reader.feed(self.read(size))
        assert not any(isinstance(message, BadLine) for message in found), found
        return found  # type: ignore[return-value]
