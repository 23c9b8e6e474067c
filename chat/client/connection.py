"""Path: one of a client's two ways to the server. It connects, keeps what the kernel does not take yet, and comes back.

Two paths are two TCP connections, so that what delays one does not hold up the other.
"""

import random
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from chat.client.events import PathName
from chat.client.pulse import Pulse, patience_ns
from chat.net.loop import Loop, Timer
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Address, Arrival, Target, Transport, resolve
from chat.protocol.errors import AddressError
from chat.protocol.messages import Down, Message, Ping
from chat.protocol.wire import DOWN, BadLine, LineReader, encode

#: Longest line a server may send: a list of tens of thousands of nicknames is one.
MAX_LINE_BYTES = 4 << 20
#: How long connecting and being let in may take.
OPEN_S = 10.0
#: Pause before a new attempt, doubling up to the longest, each varied by half so that clients do not come in step.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
#: How often a connection's pulse is felt, and after how much quiet it is asked for a sign of life.
CHECK_S = 0.5
QUIET_NS = 2_000_000_000
#: A question that has been open for so long is not going to be answered on this connection.
SILENT_NS = 10_000_000_000


class PathStatus(NamedTuple):
    """What a person may want to know about a path."""

    name: PathName
    where: str
    state: Literal["in use", "in reserve", "opening", "down"]
    #: What the kernel knows about it, if it is up.
    info: TcpInfo | None
    #: Our own port, by which a packet capture tells connections apart; 0 if it is not up.
    local_port: int = 0


class PathOwner(Protocol):
    """Whom a path tells what happens on it."""

    def path_open(self, path: "Path") -> None:
        """Connected: say who we are."""

    def path_message(self, path: "Path", message: Down, arrival: Arrival, exact: bool, end_byte: int) -> None:
        """A message came.

        Args:
            exact: the arrival's time is that of this very line.
            end_byte: how many bytes of the connection's stream end with it.
        """

    def path_writable(self, path: "Path") -> None:
        """Everything written so far has gone out."""

    def path_down(self, path: "Path", reason: str) -> None:
        """The connection, or the attempt at one, is over."""

    def path_ending(self, path: "Path", info: TcpInfo | None) -> None:
        """The connection is about to be closed, and this is the last that the kernel says about it."""

    def has_spare(self, path: "Path") -> bool:
        """Whether another connection is ready to take over, so that this one need not be waited for very long."""


class Path:
    """At most one connection at a time, to one address.

    Attributes:
        up: the server has accepted this connection into the session.
        follows: it was asked to send the session's logs here.
        carries: every message that we send goes out here.
        given_id: the last message that was written to it.
        reported_down: the program knows that it is down; further failures are no news.
    """

    def __init__(
        self,
        loop: Loop,
        name: PathName,
        address: Address,
        owner: PathOwner,
        *,
        congestion: str | None,
        randomness: random.Random,
    ) -> None:
        self.name: PathName = name
        self.up = self.follows = self.carries = self.reported_down = False
        self.given_id = 0
        self.transport: Transport | None = None
        self._loop = loop
        self._address = address
        self._target: Target | AddressError = AddressError("Not looked up yet.")
        self._where = f"{address[0]} port {address[1]}"
        self._owner = owner
        self._congestion = congestion
        self._random = randomness
        self._reader = LineReader(DOWN, MAX_LINE_BYTES)
        #: Of this connection's stream.
        self._bytes_read = 0
        self._unsent = bytearray()
        self._pulse = Pulse(0)
        self._pause_s = FIRST_PAUSE_S
        self._timer: Timer | None = None
        self._connected = False

    def __repr__(self) -> str:
        state = "up" if self.up else "opening" if self.transport else "down"
        return f"<Path {self.name} {state}, {len(self._unsent)} B unsent>"

    def status(self) -> PathStatus:
        """How it is just now."""
        if self.up and self.transport is not None:
            sock = self.transport.sock
            state: Literal["in use", "in reserve"] = "in use" if self.carries else "in reserve"
            return PathStatus(self.name, self._where, state, TcpInfo.of(sock), sock.getsockname()[1])
        return PathStatus(self.name, self._where, "opening" if self.transport else "down", None)

    @property
    def backlog(self) -> bool:
        """Whether the kernel has not taken all that was written."""
        return bool(self._unsent)

    def look_up(self) -> None:
        """Find the host's address, once. A name may block for as long as DNS takes; :meth:`open` tells of a failure."""
        try:
            self._target = resolve(*self._address)
        except AddressError as error:
            self._target = error

    def open(self) -> None:
        """Begin to connect; the owner hears of it."""
        self._reader = LineReader(DOWN, MAX_LINE_BYTES)
        self._bytes_read = 0
        self._set_timer(OPEN_S, lambda: self.drop(f"No answer from {self._where}."))
        try:
            self.transport = self._connect()
        except AddressError as error:
            reason = str(error)
            self._set_timer(0, lambda: self.drop(reason))

    def open_later(self) -> None:
        """Connect after a pause that grows with each failure."""
        pause_s = self._pause_s * self._random.uniform(0.5, 1.5)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._set_timer(pause_s, self.open)

    def accepted(self) -> None:
        """The server has let this connection into the session."""
        self.up = True
        self.reported_down = False
        self._pause_s = FIRST_PAUSE_S
        self._pulse = Pulse(self._loop.now_ns())
        self._set_timer(CHECK_S, self._check)

    def ask(self, message: Message) -> None:
        """Send a message that is not one of the pending ones."""
        self.write(encode(message))

    def pass_on(self, message: Message) -> None:
        """Send a message that nobody need answer."""
        self.write(encode(message), asks=False)

    def write(self, data: bytes, *, asks: bool = True) -> None:
        """Send now what the kernel takes, and the rest as soon as it takes more. `asks`: the server will answer."""
        if self.transport is None:
            return
        if asks:
            self._pulse.asked(self._loop.now_ns())
        if not self._unsent:
            sent = self.transport.send(data)
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent += data
        self.transport.want_writable()

    def close(self, *, broken: bool = False) -> None:
        """Free everything now. With `broken`, the server shall take it for a connection that broke."""
        self._cancel_timer()
        if self.transport is not None:
            self._owner.path_ending(self, TcpInfo.of(self.transport.sock))
            if broken:
                self.transport.abort()
            self.transport.close()
            self.transport = None
        self._unsent.clear()
        self.up = self.follows = self.carries = self._connected = False
        self.given_id = 0

    def _connect(self) -> Transport:
        if not isinstance(self._target, Target):
            raise self._target
        return Transport.connect(
            self._loop,
            self._target,
            on_data=self._data,
            on_writable=self._writable,
            on_lost=self._lost,
            congestion=self._congestion,
        )

    def _writable(self) -> None:
        """The first time: connected. Later: the kernel takes bytes again."""
        if not self._connected:
            self._connected = True
            self._owner.path_open(self)
        elif self.transport is not None:
            del self._unsent[: self.transport.send(self._unsent)]
            if self._unsent:
                self.transport.want_writable()
            else:
                self._owner.path_writable(self)

    def _data(self, data: bytes, arrival: Arrival) -> None:
        self._pulse.heard(arrival.seen_ns)
        begin, line_end = self._bytes_read, 0
        self._bytes_read += len(data)
        messages = self._reader.feed(data)
        # The stamp is that of the last segment, which belongs to the last line if nothing comes after it.
        exact_index = len(messages) - 1 if arrival.stamped and data.endswith(b"\n") else -1
        for index, message in enumerate(messages):
            line_end = data.find(b"\n", line_end) + 1
            if self.transport is None:
                return  # closed by what an earlier message led to
            if isinstance(message, BadLine):
                self.drop(f"The server cannot be understood: {message.reason}")
                return
            self._owner.path_message(self, message, arrival, index == exact_index, begin + line_end)

    def _lost(self, reason: str) -> None:
        what = "The connection broke" if self._connected else f"Cannot connect to {self._where}"
        self.drop(f"{what}: {reason}.")

    def _check(self) -> None:
        """Feel the pulse: ask after a while of quiet, give up after a while of silence."""
        now_ns = self._loop.now_ns()
        silent_ns = self._pulse.silent_ns(now_ns)
        if silent_ns > self._patience_ns():
            self.drop(f"No answer for {silent_ns / 1e9:.1f} s.")
            return
        self._set_timer(CHECK_S, self._check)
        if self._pulse.quiet_ns(now_ns) >= QUIET_NS:
            self.ask(Ping())

    def _patience_ns(self) -> int:
        if self.transport is None or not self._owner.has_spare(self):
            return SILENT_NS
        info = TcpInfo.of(self.transport.sock)
        if info is None or info.rtt_us is None or info.rttvar_us is None:
            return SILENT_NS
        return min(SILENT_NS, patience_ns(info.rtt_us, info.rttvar_us))

    def drop(self, reason: str) -> None:
        """Break the connection, or give up the attempt at one. The owner is told."""
        # With a reset, since we are coming back: an orderly end would be the end of the session.
        self.close(broken=True)
        self._owner.path_down(self, reason)

    def _set_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay_s, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
