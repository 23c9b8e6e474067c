"""Paths: one or two connections that carry one session: how they come into use, and go out of it.

Modes:

- `single`: one connection.
- `standby`: a second connection is open and idle, and takes over when the first one breaks or falls silent.
- `redundant`: every message goes out on both, everything comes in on both, the first copy wins.

The two rules that make losing connections lose no message: a connection that *carries* is given every pending message
(all of them again when it begins to), and the server accepts each id once. When all connections are gone, new ones
attach to the same session, which the server keeps for a while, or begin another one with a server that began anew; what
is said until then waits.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from chat.client.connection import Connection
from chat.client.events import (
    Closed,
    Event,
    FileNews,
    PathDown,
    PathName,
    PathUp,
    Reconnecting,
    Refused,
    Registered,
    Resumed,
    StartedAnew,
)
from chat.client.files.desk import FileDesk
from chat.client.session import ClientSession
from chat.net.loop import Loop, Timer
from chat.net.stamps import Arrival
from chat.net.tcpinfo import TcpInfo
from chat.protocol import messages
from chat.protocol.filemessages import FileChunk, FileCredit

Mode = Literal["single", "standby", "redundant"]

#: How long the server may take to close the connections after a `bye`.
LEAVE_S = 3.0
#: About how much is handed to a connection at once; the rest when the kernel has taken that.
FEED_BYTES = 65_536
#: Looked up by type, which costs each of thousands of lines a second less than matching.
_PERHAPS_ABOUT_FILES = {FileNews, Refused}
#: Refusals that end no session: later it may go on.
_NOT_NOW = {"too_many_tries", "no_space"}
_FROM_NO_LOG = {FileChunk, FileCredit, messages.Bye, messages.Refused}


class Paths:
    """The owner of the connections; calls `on_event` from the loop, and last of all with :class:`Closed`, exactly once.

    Args:
        session: what the connections carry.
        files: is told what concerns files.
        connection_of: makes a connection that belongs to this owner, one for each name.
        retry_s: how long to try to come back when all connections are gone.
        on_end: called with the kernel's last word on each connection just before it is freed.
    """

    def __init__(
        self,
        loop: Loop,
        session: ClientSession,
        files: FileDesk,
        mode: Mode,
        *,
        connection_of: Callable[["Paths", PathName], Connection],
        retry_s: float,
        on_event: Callable[[Event], None],
        on_end: Callable[[PathName, TcpInfo], None],
    ) -> None:
        self.mode: Mode = mode
        self.closed = False
        #: Whether all connections are gone and new ones are tried.
        self.away = False
        #: How often the second connection took over, and how often the session was gone on with after both were gone.
        self.takeovers = self.resumptions = 0
        #: Why the session is over, once it is; its connections may still be closing.
        self.end_reason: str | None = None
        self._loop = loop
        self._session = session
        self._files = files
        self._retry_s = retry_s
        self._program = on_event
        self._on_end = on_end
        #: Runs while we are away, unless that may last for ever.
        self._away_timer: Timer | None = None
        #: When a server that went will be back, as it said (CLOCK_MONOTONIC, ns).
        self._back_at_ns: int | None = None
        self._end_timer: Timer | None = None
        names: tuple[PathName, ...] = ("primary",) if mode == "single" else ("primary", "secondary")
        self.connections = [connection_of(self, name) for name in names]
        #: The connections that the program knows to be down: further failures are no news.
        self._known_down: set[PathName] = set()
        #: Where `hello` can still be tried.
        self._untried = [*self.connections]
        self._has_begun = False

    def __repr__(self) -> str:
        return f"<Paths {', '.join(map(repr, self.connections))}>"

    @property
    def up(self) -> list[Connection]:
        """Those that belong to the session just now."""
        return [connection for connection in self.connections if connection.is_up]

    # What the client asks for.

    def connect(self) -> None:
        """Look up the addresses, which may block, and begin with the first path."""
        if self._has_begun:
            raise RuntimeError("A client connects once; to begin another session, make another one.")
        self._has_begun = True
        for connection in self.connections:
            connection.look_up()
        self._untried.pop(0).open()

    def reconnect(self) -> None:
        """Break all connections; the session goes on over new ones."""
        for connection in self.connections:
            if connection.is_up:
                connection.drop("Closed by /reconnect.")

    def leave(self) -> None:
        """Say bye on every connection; the end comes when the server has closed them, or does not in time."""
        if self.end_reason is None:
            self._say_bye()
            for connection in self.connections:
                if not connection.is_up:
                    connection.close()
            self._end_when_closed("left")

    def close(self) -> None:
        """Free everything now; whether the server hears the `bye` is not waited for."""
        if self.end_reason is None:
            self.end_reason = "closed"
            self._say_bye()
        self._end()

    def _say_bye(self) -> None:
        """Behind what we said last: over a reserve, which has not carried that, it could overtake it."""
        for connection in [each for each in self.up if each.carries] or self.up:
            connection.ask(messages.Bye())

    def feed_all(self) -> None:
        """Hand every connection what is pending and was not handed to it."""
        for connection in self.connections:
            self._feed(connection)

    # What the connections tell us.

    def on_connected(self, connection: Connection) -> None:
        """`hello` if the server knows no session of ours, otherwise `attach`."""
        if self._session.token:
            self._attach(connection, follow=self.mode == "redundant" or not self._is_followed())
        else:
            connection.greet(self._session.hello())

    def on_welcome(self, connection: Connection, message: messages.Welcome) -> None:
        """A session begins: the first, or another one with a server that does not know the last one any more."""
        rooms = self._session.rooms[1:]
        goes_on = self._session.welcome(message)
        unfit = self._session.give_up_unfit(private=not goes_on)
        if goes_on:
            self._attach(connection, follow=True)
        else:
            self._session.following.add(connection.name)
        self._session.rejoin(rooms, self._loop.now_ns())
        self._feed(connection)
        if self.away:
            self._end_being_away()
            self._on_event(StartedAnew(message.nick, self._session.in_doubt, missed=not goes_on))
            self._tell_all(self._session.give_up(rooms=not goes_on))
        else:
            self._on_event(Registered(message.nick))
        self._tell_all(unfit)
        self._tell_up(connection)
        for other in self.connections:
            if other is not connection and self.end_reason is None:
                other.open()

    def on_attached(self, connection: Connection, message: messages.Attached, is_new: bool) -> None:
        """A connection belongs to the session now, or follows the logs from where it asked to."""
        if connection.carries:
            self._session.following.add(connection.name, message.id)
            self._feed(connection)
            # Nobody answers what we say a second time. This is answered, and shows that the connection is alive.
            connection.ask(messages.Ping())
        elif not self._is_followed():
            # The connection that this one was to stand by for broke while this one was being let in.
            self._attach(connection, follow=True)
        if is_new:
            if self.away:
                self._end_being_away()
                self.resumptions += 1
                self._on_event(Resumed(connection.name))
            self._tell_up(connection)
        if connection.carries:
            self._tell_all(self._session.member(message.cursors, message.id, connection.name))

    def on_message(
        self, connection: Connection, message: messages.Down, arrival: Arrival, exact: bool, end_byte: int
    ) -> None:
        """Any other message came in."""
        session = self._session
        for event in session.receive(message, connection.name, arrival.received_ns, arrival.seen_ns, exact, end_byte):
            if type(event) in _PERHAPS_ABOUT_FILES:
                self._on_perhaps_about_files(event)
            else:
                self._on_event(event)  # type: ignore[arg-type]
        if type(message) in _FROM_NO_LOG:
            self._on_message_from_no_log(connection, message, arrival)
        if session.wants_to_ask and connection.carries:
            connection.write(session.ask())

    def _on_perhaps_about_files(self, event: Event | FileNews) -> None:
        if isinstance(event, FileNews):
            self._files.news(event.line, event.own)
        elif not isinstance(event, Refused) or not self._files.refused(event):
            self._on_event(event)

    def _on_message_from_no_log(self, connection: Connection, message: messages.Down, arrival: Arrival) -> None:
        match message:
            case FileChunk() | FileCredit():
                self._files.flow(message, arrival.seen_ns)
            case messages.Bye() if self.end_reason is None:
                self._on_bye(connection, message)
            case messages.Refused() if not connection.is_up:
                self._not_let_in(connection, message)

    def on_writable(self, connection: Connection) -> None:
        """The connection can take more."""
        self._feed(connection)
        self._files.on_writable()

    def on_ending(self, connection: Connection, info: TcpInfo | None) -> None:
        """The connection is about to be closed."""
        if info is not None:
            self._on_end(connection.name, info)

    def has_reserve(self, connection: Connection) -> bool:
        """Whether a standby connection is ready to take over from this one."""
        others = (other for other in self.connections if other is not connection)
        return self.mode == "standby" and connection.follows and any(other.is_up for other in others)

    def on_down(self, connection: Connection, reason: str) -> None:
        """The connection is gone; go on over the other one if there is one."""
        self._files.connections_changed()
        if self.end_reason is not None:
            if not self._has_sockets():
                self._end()
        elif self._session.token:
            self._go_on_without(connection, reason)
        elif self.away:
            # Said hello in vain; try the other way, if there is one.
            self.connections[self.connections.index(connection) - 1].open_later(self._absence_s())
        elif self._untried:
            self._untried.pop(0).open()
        else:
            self.end_reason = reason
            self._end()

    # How connections come into use.

    def _attach(self, connection: Connection, *, follow: bool) -> None:
        connection.attach(self._session.attach(follow), follow=follow)

    def _tell_up(self, connection: Connection) -> None:
        self._known_down.discard(connection.name)
        self._on_event(PathUp(connection.name))
        self._files.connections_changed()

    def _not_let_in(self, connection: Connection, refusal: messages.Refused) -> None:
        if refusal.code == "bad_token" and any(other.is_up for other in self.connections):
            connection.drop(refusal.reason)  # the session is alive: this is another server
        elif refusal.code in _NOT_NOW and self._session.registered:
            connection.drop(refusal.reason)
        elif refusal.code != "bad_token":
            # The nickname cannot be had, or not again.
            self.end_reason = self.end_reason or refusal.reason
            self._end()
        elif self._session.token:
            # The session is over: it was kept for us no longer, or the server has restarted.
            for other in self.connections:
                if other is not connection:
                    other.close()
            self._session.forget()
            self._be_away(refusal.reason)
            self._files.fail_all("The session is over; offer the file again, and it goes on from what has arrived.")
            connection.greet(self._session.hello())

    # How connections go out of use.

    def _on_bye(self, connection: Connection, message: messages.Bye) -> None:
        """The server ends the session; or it goes and means to come back, and so do we."""
        if message.back_in_s is None:
            self._end_when_closed(message.reason)
            return
        if message.id is not None:
            self._session.ends_after(message.id)
        self._back_at_ns = self._loop.now_ns() + int(message.back_in_s * 1e9)
        connection.drop(message.reason)

    def _go_on_without(self, connection: Connection, reason: str) -> None:
        connection.open_later(self._absence_s())
        ask_again = self._session.stop_following(connection.name)
        if self._back_at_ns is None:
            for other in self.connections:
                if other.is_up and (not other.follows or other.name in ask_again):
                    self.takeovers += not other.follows
                    self._attach(other, follow=True)
        if connection.name not in self._known_down:
            self._known_down.add(connection.name)
            self._on_event(PathDown(connection.name, reason))
        if not any(other.is_up for other in self.connections):
            self._be_away(reason)

    def _absence_s(self) -> float:
        """For how long there is no server, as it said itself."""
        return 0.0 if self._back_at_ns is None else max(0.0, (self._back_at_ns - self._loop.now_ns()) / 1e9)

    def _be_away(self, reason: str) -> None:
        if self.away or self.closed:
            return
        self.away = True
        absence_s = self._absence_s()
        if self._retry_s < float("inf"):
            self._away_timer = self._loop.call_later(self._retry_s + absence_s, lambda: self._give_up(reason))
        self._on_event(Reconnecting(reason, None if self._back_at_ns is None else absence_s))

    def _end_being_away(self) -> None:
        self.away = False
        self._back_at_ns = None
        if self._away_timer is not None:
            self._away_timer.cancel()
            self._away_timer = None

    def _give_up(self, reason: str) -> None:
        self.end_reason = f"{reason.removesuffix('.')}. Nothing could be reached again for {self._retry_s:g} s."
        self._end()

    def _is_followed(self) -> bool:
        """Whether some connection brings the logs, or is about to."""
        return any(connection.follows for connection in self.connections)

    def _has_sockets(self) -> bool:
        return any(connection.transport is not None for connection in self.connections)

    # How messages go out, and how it ends.

    def _feed(self, connection: Connection) -> None:
        """Hand the connection what is pending and was not handed to it, as long as the kernel takes it."""
        while connection.carries and not connection.backlog:
            lines, connection.given_id = self._session.unanswered(connection.given_id, FEED_BYTES)
            if not lines:
                return
            connection.write(lines)

    def _on_event(self, event: Event) -> None:
        """Tell the program, unless it has closed us in answer to an earlier event."""
        if not self.closed:
            self._program(event)

    def _tell_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._on_event(event)

    def _end_when_closed(self, reason: str) -> None:
        self.end_reason = reason
        self._end_timer = self._loop.call_later(LEAVE_S if self._has_sockets() else 0, self._end)

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        for timer in (self._end_timer, self._away_timer):
            if timer is not None:
                timer.cancel()
        for connection in self.connections:
            connection.close()
        self._files.fail_all("The chat is over.")
        lost = self._session.lost
        for event in self._session.give_up(rooms=True, waiting=True):
            self._program(event)
        self._program(Closed(self.end_reason or "", lost))
