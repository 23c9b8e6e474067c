"""ChatClient: one nickname over one or two connections. It never blocks, except to look up a host name in `connect`.

What the modes mean, and why losing connections loses no message, is said in :mod:`chat.client.paths`.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from chat.client.connection import Connection, ConnectionStatus
from chat.client.events import Event, PathName
from chat.client.files.desk import FileDesk
from chat.client.outgoing import line_of
from chat.client.paths import Mode, Paths
from chat.client.session import ClientSession
from chat.net.loop import Loop
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Address
from chat.protocol import messages
from chat.protocol.errors import NotRegistered, TooMuchUnderWay
from chat.protocol.fields import LOBBY
from chat.protocol.limits import Limits
from chat.protocol.message import Message

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Address", "ChatClient", "Mode"]

#: How long to try to come back when all connections are gone.
RETRY_S = 60.0
#: Most messages that are kept while there is no connection.
MAX_WAITING = 1_000


class ChatClient:
    """Calls `on_event` from the loop; the last event is always :class:`chat.client.events.Closed`, exactly once.

    Args:
        loop: runs everything; the caller runs the loop.
        nick: the nickname to ask for.
        primary: where the first connection goes.
        secondary: where the second one goes; to the same place if not given.
        mode: see :mod:`chat.client.paths`.
        on_event: called with each event, never from within a method of this class other than :meth:`close` and
            :meth:`reconnect`.
        congestion: TCP congestion control of both connections; the system's own if not given.
        retry_s: how long to try to come back when all connections are gone, before that is the end; `math.inf`: until
            :meth:`leave`. A server that says when it will be back is waited for that much longer.
        password: the server's, if it has one.
        tls: makes the connections private; see :func:`chat.net.tls.client_context`.

    Raises:
        NotText: the nickname or the password has half a character in it.
        ValueError: there is no such mode.
    """

    def __init__(
        self,
        loop: Loop,
        nick: str,
        primary: Address,
        secondary: Address | None = None,
        *,
        mode: Mode = "single",
        on_event: Callable[[Event], None],
        congestion: str | None = None,
        retry_s: float = RETRY_S,
        password: str = "",
        tls: "SSLContext | None" = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"A client's mode is one of {', '.join(get_args(Mode))}; got {mode!r}.")
        self.mode: Mode = mode
        #: Called with the name of the path and the kernel's last word on each connection just before it is freed.
        self.on_end: Callable[[PathName, TcpInfo], None] = lambda _name, _info: None
        self._loop = loop
        self._session = ClientSession(nick, secrets.token_urlsafe(16), password)
        #: Sends and receives files.
        self.files = FileDesk(loop, self, on_event)
        addresses: dict[PathName, Address] = {"primary": primary, "secondary": secondary or primary}

        def connection_of(owner: Paths, name: PathName) -> Connection:
            return Connection(loop, name, addresses[name], owner, congestion=congestion, tls=tls)

        self._paths = Paths(
            loop,
            self._session,
            self.files,
            mode,
            connection_of=connection_of,
            retry_s=retry_s,
            on_event=on_event,
            on_end=lambda name, info: self.on_end(name, info),
        )

    def __repr__(self) -> str:
        return f"<ChatClient {self.mode}, {self._session!r}, {self._paths!r}>"

    @property
    def nick(self) -> str:
        """As asked for; once registered, as the server writes it."""
        return self._session.nick

    @property
    def registered(self) -> bool:
        """Whether messages can be said; without any connection just now, they wait until there is one again."""
        return self._session.registered and self._paths.end_reason is None

    @property
    def closed(self) -> bool:
        """Whether the last event was told, and everything is free."""
        return self._paths.closed

    @property
    def away(self) -> bool:
        """Whether all connections are gone and new ones are tried."""
        return self._paths.away

    @property
    def takeovers(self) -> int:
        """How often the second connection took over."""
        return self._paths.takeovers

    @property
    def resumptions(self) -> int:
        """How often the session was gone on with after all connections were gone."""
        return self._paths.resumptions

    @property
    def rooms(self) -> list[str]:
        """The rooms that we are in, the lobby first."""
        return self._session.rooms

    @property
    def limits(self) -> Limits:
        """What the server accepts."""
        return self._session.limits

    @property
    def pending(self) -> int:
        """How many messages were said and neither echoed nor refused."""
        return self._session.pending

    @property
    def in_doubt(self) -> int:
        """How many more an earlier session was given, of which it has still to show whether they were accepted."""
        return len(self._session.in_doubt)

    @property
    def waiting(self) -> int:
        """How many of those that are pending wait for a connection."""
        return self._session.waiting

    @property
    def duplicates(self) -> int:
        """How many lines came a second time, over the other connection, and were dropped."""
        return self._session.duplicates

    def tcp_info(self) -> dict[PathName, TcpInfo]:
        """What the kernel knows about each connection that is in use now, by the name of its path."""
        return {status.name: status.info for status in self.connections() if status.info is not None}

    def connections(self) -> list[ConnectionStatus]:
        """Each connection that there is, or should be."""
        return [connection.status() for connection in self._paths.connections]

    # What the program asks for.

    def connect(self) -> None:
        """Begin to connect and register; events follow. Over the second path if the first cannot be used.

        Host names are looked up here, once, which may block; numeric addresses are not.

        Raises:
            RuntimeError: it was called before. After :class:`chat.client.events.Closed`, another client connects anew.
        """
        self._paths.connect()

    def say(self, text: str, *, room: str = LOBBY, intended_ns: int | None = None) -> int:
        """Send a message to everyone in a room and return its id.

        Args:
            text: what to say.
            room: where; we must be in it, or be about to: what is asked first is done first.
            intended_ns: when it was meant to be sent (CLOCK_MONOTONIC); now, if not given.

        Raises:
            NotRegistered: there is no session.
            TooMuchUnderWay: too many messages wait for their echo, or for a connection.
            TooLong: the server takes no line of this length.
            NotText: there is half a character in it.
        """
        now_ns = self._time_to_speak_ns()
        number = self._session.say(text, now_ns if intended_ns is None else intended_ns, now_ns, room)
        self._paths.feed_all()
        return number

    def tell(self, nick: str, text: str, *, intended_ns: int | None = None) -> int:
        """Send a message to one nickname; otherwise like :meth:`say`."""
        now_ns = self._time_to_speak_ns()
        number = self._session.tell(nick, text, now_ns if intended_ns is None else intended_ns, now_ns)
        self._paths.feed_all()
        return number

    def rename(self, nick: str) -> int:
        """Ask for another nickname; an event `Renamed` or a refusal follows. Raises as :meth:`say`.

        The session keeps its former names, so that nobody else can take them.
        """
        return self.request(lambda number: messages.Nick(nick, number))

    def join(self, room: str) -> int:
        """Join a room; an event `Entered` or a refusal with this id follows. Raises as :meth:`say`.

        It outlives broken connections, and a new session too: we ask to be let in again.
        """
        number = self._session.join(room, self._time_to_speak_ns())
        self._paths.feed_all()
        return number

    def leave_room(self, room: str) -> int:
        """Leave a room; an event `Departed` or a refusal follows. Otherwise like :meth:`join`."""
        number = self._session.leave(room, self._time_to_speak_ns())
        self._paths.feed_all()
        return number

    def request(self, message_of: Callable[[int], Message]) -> int:
        """Send a message, made of its id, that the inbox answers; otherwise like :meth:`say`."""
        number = self._session.request(message_of, self._time_to_speak_ns())
        self._paths.feed_all()
        return number

    def set_topic(self, text: str, room: str = LOBBY) -> int:
        """Say what a room is about; an event `TopicSet` or a refusal follows. Raises as :meth:`say`."""
        return self.request(lambda number: messages.SetTopic(text, number, room))

    def who(self, room: str = LOBBY) -> None:
        """Ask who is in a room; a :class:`chat.client.events.Present` event answers.

        Raises:
            NotRegistered: there is no session, or no connection to it just now.
            TooLong: the server takes no line of this length.
            NotText: there is half a character in it.
        """
        self._ask(messages.Who(room))

    def recall(self, lines: int, room: str = LOBBY) -> None:
        """Ask for the last lines of a room; an event `Recalled` answers. Raises as :meth:`who`."""
        self._ask(messages.Recall(lines, room))

    def list_rooms(self) -> None:
        """Ask which rooms there are; a :class:`chat.client.events.RoomList` event answers. Raises as :meth:`who`."""
        self._ask(messages.ListRooms())

    def file_connection(self) -> Connection | None:
        """The connection that files take: the last one that is up."""
        return next(reversed(self._paths.up), None)

    def reconnect(self) -> None:
        """Break all connections; the session goes on over new ones.

        Raises:
            NotRegistered: there is no session.
        """
        self._time_to_speak_ns()
        self._paths.reconnect()

    def leave(self) -> None:
        """Say bye on every connection; the end comes when the server has closed them, or does not in time."""
        self._paths.leave()

    def close(self) -> None:
        """Free everything now; whether the server hears the `bye` is not waited for."""
        self._paths.close()

    def _time_to_speak_ns(self) -> int:
        if not self.registered:
            raise NotRegistered("There is no session: not welcomed yet, or over.")
        if self.away and self.waiting >= MAX_WAITING:
            raise TooMuchUnderWay(f"{self.waiting} messages wait for a connection; no more are kept.")
        return self._loop.now_ns()

    def _ask(self, question: Message) -> None:
        self._time_to_speak_ns()
        line = line_of(question, self.limits.line_bytes)
        # On one connection only: an answer that comes from no log cannot be recognised as a second copy. Not on one in
        # reserve, if there is another: a refusal comes through the inbox.
        connection = max(self._paths.up, key=lambda each: each.carries, default=None)
        if connection is None:
            raise NotRegistered("There is no connection just now; new ones are tried.")
        connection.write(line)
