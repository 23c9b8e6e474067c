"""ChatClient: one nickname over one or two connections. It never blocks, except to look up a host name in `connect`.

Modes:

- `single`: one connection.
- `standby`: a second connection is open and idle, and takes over when the first one breaks or falls silent.
- `redundant`: every message goes out on both, everything comes in on both, the first copy wins.

The two rules that make losing connections lose no message: a path that *carries* is given every pending message (all
of them again when it begins to), and the server accepts each id once. When all connections are gone, new ones attach
to the same session, which the server keeps for a while.
"""

import random
import secrets
from collections.abc import Callable
from typing import Literal

from chat.client.connection import Path, PathStatus
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
from chat.client.speaker import Speaker
from chat.net.loop import Loop, Timer
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Address, Arrival
from chat.protocol import messages
from chat.protocol.errors import NotRegistered

__all__ = ["Address", "ChatClient", "Mode"]

Mode = Literal["single", "standby", "redundant"]

#: How long the server may take to close the connections after a `bye`.
LEAVE_S = 3.0
#: How long to try to come back when all connections are gone.
RETRY_S = 60.0
#: About how much is handed to a path at once; the rest when the kernel has taken that.
FEED_BYTES = 65_536


class ChatClient(Speaker):
    """Calls `on_event` from the loop; the last event is always :class:`chat.client.events.Closed`, exactly once.

    Args:
        loop: runs everything; the caller runs the loop.
        nick: the nickname to ask for.
        primary: where the first connection goes.
        secondary: where the second one goes; to the same place if not given.
        mode: see the module.
        on_event: called with each event, never from within a method of this class other than :meth:`close` and
            :meth:`reconnect`.
        congestion: TCP congestion control of both connections; the system's own if not given.
        randomness: varies the pauses before new attempts to connect.
        retry_s: how long to try to come back when all connections are gone, before that is the end.
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
        randomness: random.Random | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.mode: Mode = mode
        self.closed = False
        #: How often the second connection took over, and how often the session was gone on with after both were gone.
        self.takeovers = self.resumptions = 0
        #: Called with the name of the path and the kernel's last word on each connection just before it is freed.
        self.on_end: Callable[[PathName, TcpInfo], None] = lambda _name, _info: None
        self._loop = loop
        self._on_event = on_event
        self._session = ClientSession(nick, secrets.token_urlsafe(16))
        #: Sends and receives files.
        self.files = FileDesk(loop, self, on_event)
        self._retry_s = retry_s
        #: Runs while there is no connection at all.
        self._away_timer: Timer | None = None
        #: Why the session is over, once it is; its connections may still be closing.
        self._end_reason: str | None = None
        self._end_timer: Timer | None = None
        randomness = randomness or random.Random()
        addresses: list[tuple[PathName, Address]] = [("primary", primary)]
        if mode != "single":
            addresses.append(("secondary", secondary or primary))
        self._paths = [
            Path(loop, name, address, self, congestion=congestion, randomness=randomness) for name, address in addresses
        ]
        #: Ids of which the server of the last session left it unknown whether they were accepted.
        self._in_doubt: tuple[int, ...] = ()
        #: Where `hello` can still be tried.
        self._untried = [*self._paths]

    def __repr__(self) -> str:
        return f"<ChatClient {self.mode}, {self._session!r}, {', '.join(map(repr, self._paths))}>"

    @property
    def nick(self) -> str:
        """As asked for; once registered, as the server writes it."""
        return self._session.nick

    @property
    def registered(self) -> bool:
        """Whether messages can be sent; without any connection just now, they are sent when there is one again."""
        return self._session.registered and self._end_reason is None

    @property
    def rooms(self) -> list[str]:
        """The rooms that we are in, the lobby first."""
        return self._session.rooms

    @property
    def away(self) -> bool:
        """Whether all connections are gone and new ones are tried."""
        return self._away_timer is not None

    @property
    def pending(self) -> int:
        """How many messages were sent and neither echoed nor refused."""
        return self._session.pending

    @property
    def duplicates(self) -> int:
        """How many lines came a second time, over the other connection, and were dropped."""
        return self._session.duplicates

    # What the program asks for.

    def connect(self) -> None:
        """Begin to connect and register; events follow. Over the second path if the first cannot be used.

        Host names are looked up here, once, which may block; numeric addresses are not.
        """
        for path in self._paths:
            path.look_up()
        self._untried.pop(0).open()

    @property
    def limits(self) -> messages.Limits:
        """What the server accepts."""
        return self._session.limits

    def file_way(self) -> Path | None:
        """The connection that files take: the last one that is up."""
        return next((path for path in reversed(self._paths) if path.up), None)

    def reconnect(self) -> None:
        """Break all connections; the session goes on over new ones.

        Raises:
            NotRegistered: there is no session.
        """
        self._speak()
        for path in self._paths:
            if path.up:
                path.drop("It was to be opened again.")

    def leave(self) -> None:
        """Say bye on every connection; the end comes when the server has closed them, or does not in time."""
        if self._end_reason is None:
            for path in self._paths:
                if path.up:
                    path.ask(messages.Bye())
                else:
                    path.close()
            self._end_when_closed("left")

    def close(self) -> None:
        """Free everything now; whether the server hears the `bye` is not waited for."""
        if self._end_reason is None:
            self._end_reason = "closed"
            for path in self._paths:
                if path.up:
                    path.ask(messages.Bye())
        self._end()

    def tcp_info(self) -> dict[PathName, TcpInfo]:
        """What the kernel knows about each connection that is in use now, by the name of its path."""
        return {status.name: status.info for status in self.connections() if status.info is not None}

    def connections(self) -> list[PathStatus]:
        """Each connection that there is, or should be."""
        return [path.status() for path in self._paths]

    # What the paths tell us.

    def path_open(self, path: Path) -> None:
        """Connected: `hello` on the first path, `attach` on the other."""
        if self._session.registered:
            self._attach(path, follow=self.mode == "redundant" or not self._carried())
        else:
            path.write(self._session.hello())

    def path_message(self, path: Path, message: messages.Down, arrival: Arrival, exact: bool, end_byte: int) -> None:
        """One message came in on this path."""
        match message:
            case messages.Welcome():
                self._welcome(path, message)
            case messages.Attached():
                self._attached(path, message)
            case messages.Bye(reason):
                if self._end_reason is None:
                    self._end_when_closed(reason)
            case messages.FileChunk() | messages.FileCredit():
                self.files.flow(message, arrival.seen_ns)
            case _:
                for event in self._session.receive(
                    message, path.name, arrival.received_ns, arrival.seen_ns, exact, end_byte
                ):
                    if isinstance(event, FileNews):
                        self.files.news(event.line, event.own)
                    elif not isinstance(event, Refused) or not self.files.refused(event):
                        self._on_event(event)
                if isinstance(message, messages.Refused) and not path.up:
                    self._not_let_in(path, message)
        if path.carries and self._session.wants_to_ask:
            path.write(self._session.ask())

    def path_writable(self, path: Path) -> None:
        """The path can take more."""
        self._feed(path)
        self.files.on_writable()

    def path_ending(self, path: Path, info: TcpInfo | None) -> None:
        """The path's connection is about to be closed."""
        if info is not None:
            self.on_end(path.name, info)

    def has_spare(self, path: Path) -> bool:
        """Whether a standby connection is ready to take over from this one."""
        return self.mode == "standby" and path.follows and any(other.up for other in self._paths if other is not path)

    def path_down(self, path: Path, reason: str) -> None:
        """The connection is gone; go on over the other one if there is one."""
        self.files.ways_changed()
        if self._end_reason is not None:
            if not self._open_paths():
                self._end()
        elif self._session.registered:
            self._go_on_without(path, reason)
        elif self.away:
            # Said hello in vain; try the other way, if there is one.
            self._paths[self._paths.index(path) - 1].open_later()
        elif self._untried:
            self._untried.pop(0).open()
        else:
            self._end_reason = reason
            self._end()

    # How paths come into use.

    def _welcome(self, path: Path, message: messages.Welcome) -> None:
        rooms = self._session.rooms[1:]
        can_go_on = self._session.welcome(message)
        path.accepted()
        path.follows = path.carries = True
        if can_go_on:
            self._attach(path, follow=True)
        else:
            self._session.following.add(path.name)
        for room in rooms:
            self.join(room)
        if self.away:
            self._back()
            self._on_event(StartedAnew(message.nick, self._in_doubt, missed=not can_go_on))
        else:
            self._on_event(Registered(message.nick))
        self._on_event(PathUp(path.name))
        self.files.ways_changed()
        for other in self._paths:
            if other is not path and self._end_reason is None:
                other.open()

    def _attach(self, path: Path, *, follow: bool) -> None:
        path.follows = follow
        path.write(self._session.attach(follow))

    def _attached(self, path: Path, message: messages.Attached) -> None:
        is_new = not path.up
        path.accepted()
        if path.follows:
            self._session.following.add(path.name)
            path.carries = True
            path.given_id = 0
            self._feed(path)
        elif not self._carried():
            # The path that this one was to stand by for broke while this one was being let in.
            self._attach(path, follow=True)
        if is_new:
            if self.away:
                self._back()
                self.resumptions += 1
                self._on_event(Resumed(path.name))
            self._on_event(PathUp(path.name))
            self.files.ways_changed()
        for event in self._session.member(message.cursors, message.id):
            self._on_event(event)

    def _not_let_in(self, path: Path, refusal: messages.Refused) -> None:
        if refusal.code != "bad_token":
            # The nickname cannot be had, or not again.
            self._end_reason = self._end_reason or refusal.reason
            self._end()
        elif self._session.registered:
            # The session is over: it was kept for us no longer, or the server has restarted.
            self._in_doubt = self._session.forget()
            self.files.fail_all("The session is over; offer the file again, and it goes on from what has arrived.")
            for other in self._paths:
                if other is not path:
                    other.close()
            path.write(self._session.hello())

    # How paths go out of use.

    def _go_on_without(self, path: Path, reason: str) -> None:
        path.open_later()
        ask_again = self._session.stop_following(path.name)
        for other in self._paths:
            if other.up and (not other.follows or other.name in ask_again):
                self.takeovers += not other.follows
                self._attach(other, follow=True)
        if not path.reported_down:
            path.reported_down = True
            self._on_event(PathDown(path.name, reason))
        if not self.away and not any(other.up for other in self._paths):
            self._away_timer = self._loop.call_later(self._retry_s, lambda: self._give_up(reason))
            self._on_event(Reconnecting(reason))

    def _back(self) -> None:
        assert self._away_timer is not None
        self._away_timer.cancel()
        self._away_timer = None

    def _give_up(self, reason: str) -> None:
        self._end_reason = f"{reason} Nothing could be reached again for {self._retry_s:g} s."
        self._end()

    def _carried(self) -> bool:
        """Whether some path carries messages, or is about to."""
        return any(path.follows for path in self._paths)

    def _open_paths(self) -> list[Path]:
        return [path for path in self._paths if path.transport is not None]

    # How messages go out, and how it ends.

    def _speak(self) -> int:
        if not self.registered:
            raise NotRegistered("There is no session: not welcomed yet, or over.")
        return self._loop.now_ns()

    def _feed_all(self) -> None:
        for path in self._paths:
            self._feed(path)

    def _feed(self, path: Path) -> None:
        """Hand the path what is pending and was not handed to it, as long as the kernel takes it."""
        while path.carries and not path.backlog:
            lines, path.given_id = self._session.unanswered(path.given_id, FEED_BYTES)
            if not lines:
                return
            path.write(lines)

    def _end_when_closed(self, reason: str) -> None:
        self._end_reason = reason
        self._end_timer = self._loop.call_later(LEAVE_S if self._open_paths() else 0, self._end)

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        for timer in (self._end_timer, self._away_timer):
            if timer is not None:
                timer.cancel()
        for path in self._paths:
            path.close()
        self.files.fail_all("The chat is over.")
        self._on_event(Closed(self._end_reason or "", self._session.lost))
