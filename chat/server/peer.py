"""Peer: one accepted connection. What comes in on it is handed to the hub line by line, a fair share in a turn."""

import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from chat.net.loop import Loop, Timer
from chat.net.transport import Transport
from chat.protocol.messages import Bye, Error, Pong, Up
from chat.protocol.wire import UP, BadLine, LineReader
from chat.server.budget import Budgets
from chat.server.costs import BARREN, CRUMB, CRUMB_BYTES, MALFORMED, UNIT_NS, cost_of, cost_of_catching_up
from chat.server.hub import Hub
from chat.server.members import Connection
from chat.server.turn import UNITS, Turn

if TYPE_CHECKING:
    from chat.net.tls import Tls

log = logging.getLogger(__name__)

#: In units: to send more to who is far behind.
REFILL = 32.0
#: Who is read no further is told so often that the server is there: a client that has another connection takes one on
#: which nothing comes for 1 s for dead.
SIGN_S = 0.5
#: In units: what costs less takes as much of a turn as what costs one.
LEAST_PART = 0.5
#: In units: what a line takes of a turn where there are no limits, and nobody counts what it costs.
UNCOUNTED = 0.5
#: The byte that every TLS connection begins with.
TLS_HANDSHAKE = b"\x16"

#: A number is what work that brought no message costs.
Incoming = Up | BadLine | float


class Host(Protocol):
    """What a peer asks of its server."""

    loop: Loop
    hub: Hub
    turn: Turn
    budgets: Budgets

    def handled(self) -> None:
        """Some lines have been handled; others may have something to be sent."""

    def registered(self, peer: "Peer") -> None:
        """It belongs to a session now."""

    def strange(self, peer: "Peer", error: Error) -> None:
        """It has begun with something that is no message, and is about to be sent away."""

    def lost(self, peer: "Peer", reason: str) -> None:
        """Its connection broke, or was closed by the other end."""


class Peer:
    """A socket, what was read from it and not yet handled, and its place in the hub.

    Raises:
        OSError: the connection was reset already.
    """

    __slots__ = (
        "_batch",
        "_begun",
        "_budget",
        "_host",
        "_incoming",
        "_is_writable",
        "_own_budget",
        "_pause",
        "_pause_end_ns",
        "_reader",
        "address",
        "connection",
        "leaving",
        "nick",
        "transport",
    )

    def __init__(self, host: Host, sock: socket.socket, address: str, origin: str, tls: "Tls | None" = None) -> None:
        self._host = host
        self.address = address
        #: For the log; it outlives the session.
        self.nick = ""
        self.transport = Transport(
            host.loop,
            sock,
            on_data=self._read,
            on_writable=self._writable,
            on_lost=self._lost,
            tls=tls,
            on_records=self._read_records,
        )
        self.connection = Connection(self.transport, origin)
        self._reader = LineReader(UP, host.hub.limits.line_bytes)
        #: Whether it has said anything that is a message. A web page can have a browser send anything but that first.
        self._begun = False
        #: What was read and not yet handled, while the peer is read no further; what has been decoded is in the batch.
        self._incoming: Iterator[Sequence[Incoming]] | None = None
        self._batch: list[Incoming] = []
        #: Whether the kernel takes bytes again, and has not been given any since.
        self._is_writable = False
        #: What it may ask for until it is in a session, and then what its session may. None: as much as it likes.
        self._own_budget = self._budget = host.budgets.begin(origin, host.loop.now_ns())
        #: Until it has made up for what it has asked for.
        self._pause: Timer | None = None
        self._pause_end_ns = 0
        #: When the connection is closed, whether or not it has taken everything.
        self.leaving: Timer | None = None

    def __repr__(self) -> str:
        return f"<Peer {self.address}, {self.connection!r}>"

    def give_up(self, error: Error) -> None:
        """Tell why, and close the connection when that has been sent."""
        self._host.hub.delivery.tell(self.connection, error)
        self._host.hub.disconnect(self.connection, error.reason)

    def finish(self) -> None:
        """Everything is said. The peer closes: if we did it with its data unread, it would lose our last lines."""
        self.transport.read_on(True)
        self.transport.finish()

    def close(self) -> None:
        """Free everything now."""
        for timer in (self.leaving, self._pause):
            if timer is not None:
                timer.cancel()
        self._host.turn.forget(self)
        self._incoming, self._batch = None, []  # with TLS they refer to us
        if self._own_budget is not None and self._budget is not None:
            now_ns = self._host.loop.now_ns()
            self._host.budgets.end(self.connection.origin, self._own_budget, self._budget, now_ns)
        self.transport.close()

    def go_on(self) -> None:
        """Send what waited for the kernel; or handle more of what was read, and when that is all, read again."""
        if self._is_writable:
            self._is_writable = False
            self._host.turn.spend(REFILL)
            self._host.hub.delivery.on_writable(self.connection)
            self._resume()
        elif self._incoming is not None and not self.connection.closing:
            was_ready = self.transport.ready
            self._handle()
            if not was_ready:  # one handshake at a time: others who have little to say come between
                self._host.turn.spend(UNITS)
            if self._incoming is None:
                self.transport.read_on(True)

    def _read(self, data: bytes) -> None:
        if self.connection.closing:
            return
        if (error := self._strangeness(data)) is not None:
            self._host.strange(self, error)
            self.give_up(error)
            self._host.handled()
        else:
            batches: Iterable[Sequence[Incoming]] = self._reader.read(data)
            if len(data) < CRUMB_BYTES:  # few enough to decode them at once
                batches = [*batches] or [[CRUMB]]
            self._incoming = iter(batches)
            if wait_ns := self._owed_ns():
                self._go_on_later(wait_ns)
            else:
                self._handle()

    def _strangeness(self, data: bytes) -> Error | None:
        """What to say to who begins with something that is no message; not of the rest of a line that came in parts."""
        return None if self._begun or self._reader.is_within else _strange_beginning(data)

    def _owed_ns(self) -> int:
        """What somebody else from its address owes is made up for before it is heard at all."""
        return 0 if self._begun or self._budget is None else self._budget.spend(0, self._host.loop.now_ns())

    def _read_records(self, records: Iterator[bytes]) -> None:
        """With TLS. A handshake may take as long as a turn, or longer: it waits for one of its own."""
        if self.connection.closing:
            return
        self._incoming = self._messages(records)
        wait_ns = self._owed_ns()
        if wait_ns or not self.transport.ready:
            self._go_on_later(wait_ns)
        else:
            self._handle()

    def _messages(self, records: Iterator[bytes]) -> Iterator[Sequence[Incoming]]:
        """What is in them, and the price of each in which there is nothing."""
        paid_ns = self.transport.handshake_ns
        for plain in records:
            if plain and (error := self._strangeness(plain)) is not None:
                yield [BadLine(error.code, error.reason)]
            is_barren = True
            for messages in self._reader.read(plain):
                is_barren = False
                yield messages
            if is_barren:
                taken_ns = self.transport.handshake_ns
                yield [BARREN + (taken_ns - paid_ns) / UNIT_NS]
                paid_ns = taken_ns

    def _writable(self) -> None:
        """The kernel takes bytes again. A crowd may be so far behind that to send more to all takes many turns."""
        self._is_writable = True
        self._host.turn.queue(self)

    def _resume(self) -> None:
        """Go on in the next turn, if there is something to go on with and nothing to wait for."""
        if self._incoming is None or self._pause is not None:
            return
        if self.connection.full:
            self.transport.want_writable()
        else:
            self._host.turn.queue(self)

    def _lost(self, reason: str) -> None:
        self._host.lost(self, reason)

    def _handle(self) -> None:
        """A few at a time, until the peer has had its share of the turn, or its budget, or its answers pile up."""
        connection, hub = self.connection, self._host.hub
        left = share = self._host.turn.share
        wait_ns = 0
        while left > 0 and not wait_ns and (batch := self._batch or self._next_batch()):
            if self._budget is None and (taken := hub.talk(connection, batch, int(left / UNCOUNTED) + 1)):
                del batch[:taken]
                left -= taken * UNCOUNTED
                continue
            units, wait_ns = self._handle_one(batch.pop(0))
            left -= units
            # Without a backlog it has been answered nothing: it is not new, is not closing, and its answers fit.
            if connection.backlog is not None and (connection.closing or connection.full):
                break
        self._host.turn.spend(share - left)
        if self._incoming is not None and not connection.closing:
            self._go_on_later(wait_ns)
        self._host.handled()

    def _next_batch(self) -> list[Incoming]:
        """What was decoded next; nothing if everything has been handled."""
        assert self._incoming is not None
        self._batch = [*next(self._incoming, ())]
        if not self._batch:
            self._incoming = None
        return self._batch

    def _handle_one(self, message: Incoming) -> tuple[float, int]:
        """Return how much of the turn this took, in units, and how long (ns) the peer is to wait after it."""
        hub = self._host.hub
        copies = hub.duplicates
        if isinstance(message, BadLine):
            self._complain(message)
        elif not isinstance(message, float):
            self._begun = True
            hub.receive(self.connection, message)
            if self.connection.closing and isinstance(message, Bye):
                log.info("%s says bye from %s", self.nick or "stranger", self.address)
        price = self._spend(message, is_copy=hub.duplicates > copies)
        if not self.nick:
            self._name()
        return price

    def _go_on_later(self, wait_ns: int) -> None:
        """With what was read: in the next turn, or when this time is over."""
        self.transport.read_on(False)
        if wait_ns:
            self._pause_end_ns = self._host.loop.now_ns() + wait_ns
            self._wait()
        self._resume()

    def _spend(self, message: Incoming, *, is_copy: bool) -> tuple[float, int]:
        """Pay for what has just been handled; returns what :meth:`_handle_one` does."""
        budget = self._budget
        if budget is None:
            return message if isinstance(message, float) else UNCOUNTED, 0
        now_ns = self._host.loop.now_ns()
        if isinstance(message, float):
            return message, budget.spend(message, now_ns)
        if isinstance(message, BadLine):
            return MALFORMED, budget.spend(MALFORMED, now_ns)
        units = cost_of(message, self._host.hub) + cost_of_catching_up(message, self.connection, self._host.hub)
        wait_ns = budget.pay(units, now_ns, is_copy=is_copy)
        # What costs hardly anything takes its part of the turn all the same.
        return (units if units >= LEAST_PART else 1.0), wait_ns

    def _wait(self) -> None:
        """Read no further for as long as the pause is to last, but give signs of life."""
        loop = self._host.loop
        self._pause = loop.call_at(min(self._pause_end_ns, loop.now_ns() + int(SIGN_S * 1e9)), self._waited)

    def _waited(self) -> None:
        self._pause = None
        if self._host.loop.now_ns() >= self._pause_end_ns:
            self._resume()
        elif not self.connection.closing:
            if self.connection.backlog is None and self.transport.ready:  # else it has enough to read, or cannot
                self._host.hub.delivery.tell(self.connection, Pong())
            self._wait()

    def _name(self) -> None:
        session = self.connection.session
        if session is not None:
            self.nick = session.nick
            log.info("%s is here from %s", self.nick, self.address)
            if session.budget is None:
                session.budget = self._budget
            self._budget = session.budget
            self._host.registered(self)

    def _complain(self, line: BadLine) -> None:
        error = Error(line.code, line.reason)
        if not self._begun:
            self._host.strange(self, error)
        if line.fatal or not self._begun:
            self.give_up(error)
        else:
            self._host.hub.delivery.tell(self.connection, error)


def _strange_beginning(data: bytes) -> Error | None:
    """What to say to who begins with something that is no message, whether or not its line is complete."""
    first = data.lstrip()[:1]
    if first == TLS_HANDSHAKE:
        return Error("no_tls", "This port does not speak TLS: connect without --tls.")
    if first not in (b"{", b""):
        return Error("malformed", "The first line must be a JSON object, such as hello; this is not how one begins.")
    return None
