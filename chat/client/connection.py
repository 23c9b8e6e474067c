"""Connection: one of a client's one or two TCP connections to the server, and the states that it goes through.

It connects, keeps what the kernel does not take yet, asks for signs of life, and connects again after it broke. What is
said on it, and when it is asked to follow, its owner decides; whether a step is possible, the table here.
"""

import random
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from chat.client.events import PathName
from chat.client.pulse import Pulse, patience_ns
from chat.net.loop import Loop, Timer
from chat.net.stamps import Arrival, StampingTransport
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Address, Target, resolve
from chat.protocol.errors import AddressError, PeerError
from chat.protocol.message import Message
from chat.protocol.messages import Attached, Down, Error, Ping, Welcome
from chat.protocol.wire import DOWN, BadLine, LineReader, encode

if TYPE_CHECKING:
    from ssl import SSLContext

    from chat.net.tls import Tls

#: Longest line a server may send: a list of tens of thousands of nicknames is one.
MAX_LINE_BYTES = 4 << 20
#: How long connecting and being let in may take.
OPEN_S = 10.0
#: Pause before a new attempt, doubling up to the longest, each varied by half so that clients do not come in step.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
#: How often to check that a connection is alive, and after how much quiet to send a `ping`.
CHECK_S = 0.5
QUIET_NS = 2_000_000_000
#: A question that has been open for so long is not going to be answered on this connection.
SILENT_NS = 10_000_000_000


class State(Enum):
    """Where a connection is on its way into the session."""

    #: No socket; perhaps a pause before the next attempt.
    DOWN = auto()
    #: The TCP handshake is under way.
    CONNECTING = auto()
    #: `hello` is said.
    GREETING = auto()
    #: `attach` is said, in order to follow the logs, or in order to stand by.
    ATTACHING = auto()
    ATTACHING_RESERVE = auto()
    #: It belongs to the session and follows nothing.
    RESERVE = auto()
    #: It stood by, and has asked to follow.
    TAKING_OVER = auto()
    #: It follows the logs, and every message goes out on it.
    ACTIVE = auto()
    #: Active, and has asked for the logs from other cursors.
    REATTACHING = auto()


class Step(Enum):
    """What moves a connection from one state to the next."""

    OPEN = auto()
    #: We say `hello`, or `attach` with `follow` true or false.
    HELLO = auto()
    FOLLOW = auto()
    STAND_BY = auto()
    #: The server says `welcome`, or `attached`.
    WELCOMED = auto()
    ATTACHED = auto()


#: What may happen in each state. Besides, any connection may go down at any time.
TRANSITIONS: dict[State, dict[Step, State]] = {
    State.DOWN: {Step.OPEN: State.CONNECTING},
    State.CONNECTING: {
        Step.HELLO: State.GREETING,
        Step.FOLLOW: State.ATTACHING,
        Step.STAND_BY: State.ATTACHING_RESERVE,
    },
    State.GREETING: {Step.WELCOMED: State.ACTIVE},
    # A server that does not know the session refuses, and is greeted.
    State.ATTACHING: {Step.ATTACHED: State.ACTIVE, Step.HELLO: State.GREETING},
    State.ATTACHING_RESERVE: {Step.ATTACHED: State.RESERVE, Step.HELLO: State.GREETING},
    State.RESERVE: {Step.FOLLOW: State.TAKING_OVER},
    State.TAKING_OVER: {Step.ATTACHED: State.ACTIVE},
    State.ACTIVE: {Step.FOLLOW: State.REATTACHING},
    State.REATTACHING: {Step.ATTACHED: State.ACTIVE},
}
#: The server has accepted the connection into the session.
_UP = {State.RESERVE, State.TAKING_OVER, State.ACTIVE, State.REATTACHING}
#: It was asked to send the session's logs here.
_FOLLOWS = {State.ATTACHING, State.TAKING_OVER, State.ACTIVE, State.REATTACHING}
#: Every message that we send goes out here.
_CARRIES = {State.ACTIVE, State.REATTACHING}
#: Looked up by type, which costs each of thousands of lines a second less than matching.
_ABOUT_CONNECTIONS = {BadLine, Error, Welcome, Attached}


class ConnectionStatus(NamedTuple):
    """What a person may want to know about a connection."""

    name: PathName
    where: str
    state: Literal["in use", "in reserve", "opening", "down"]
    #: What the kernel knows about it, if it is up.
    info: TcpInfo | None
    #: Our own port, by which a packet capture tells connections apart; 0 if it is not up.
    local_port: int = 0


class ConnectionOwner(Protocol):
    """Whom a connection tells what happens on it. What a server must not say raises PeerError, which breaks it."""

    def on_connected(self, connection: "Connection") -> None:
        """Say who we are."""

    def on_welcome(self, connection: "Connection", message: Welcome) -> None:
        """The answer to `hello`."""

    def on_attached(self, connection: "Connection", message: Attached, is_new: bool) -> None:
        """The answer to `attach`. `is_new`: the connection did not belong to the session before."""

    def on_message(self, connection: "Connection", message: Down, arrival: Arrival, exact: bool, end_byte: int) -> None:
        """Any other message.

        Args:
            exact: the arrival's time is that of this very line.
            end_byte: how many bytes of the connection's stream end with it.
        """

    def on_writable(self, connection: "Connection") -> None:
        """Everything written so far has gone out."""

    def on_down(self, connection: "Connection", reason: str) -> None:
        """The connection, or the attempt at one, is over."""

    def on_ending(self, connection: "Connection", info: TcpInfo | None) -> None:
        """The connection is about to be closed, and this is the last that the kernel says about it."""

    def has_reserve(self, connection: "Connection") -> bool:
        """Whether another connection is ready to take over, so that this one need not be waited for very long."""


class Connection:
    """At most one TCP connection at a time, to one address.

    Attributes:
        state: what it is doing; see :class:`State`.
        given_id: the last message that was written to it.
    """

    def __init__(
        self,
        loop: Loop,
        name: PathName,
        address: Address,
        owner: ConnectionOwner,
        *,
        congestion: str | None,
        tls: "SSLContext | None" = None,
    ) -> None:
        self.name: PathName = name
        self.state = State.DOWN
        self.given_id = 0
        self.transport: StampingTransport | None = None
        self._loop = loop
        self._address = address
        self._target: Target | AddressError = AddressError("Not looked up yet.")
        self._where = f"{address[0]} port {address[1]}"
        self._owner = owner
        self._congestion = congestion
        self._tls = tls
        self._reader = LineReader(DOWN, MAX_LINE_BYTES)
        #: Of this connection's stream.
        self._bytes_read = 0
        self._unsent = bytearray()
        self._pulse = Pulse(0)
        self._pause_s = FIRST_PAUSE_S
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.name} {self.state.name}, {len(self._unsent)} B unsent>"

    @property
    def is_up(self) -> bool:
        """Whether it belongs to the session."""
        return self.state in _UP

    @property
    def follows(self) -> bool:
        """Whether it brings the session's logs, or has asked for them."""
        return self.state in _FOLLOWS

    @property
    def carries(self) -> bool:
        """Whether every message that we send goes out here."""
        return self.state in _CARRIES

    @property
    def backlog(self) -> bool:
        """Whether the kernel has not taken all that was written."""
        return bool(self._unsent)

    def status(self) -> ConnectionStatus:
        """How it is just now."""
        if self.is_up and self.transport is not None:
            sock = self.transport.sock
            state: Literal["in use", "in reserve"] = "in use" if self.carries else "in reserve"
            return ConnectionStatus(self.name, self._where, state, TcpInfo.of(sock), sock.getsockname()[1])
        return ConnectionStatus(self.name, self._where, "opening" if self.transport else "down", None)

    # How it comes into the session.

    def look_up(self) -> None:
        """Find the host's address, once. A name may block for as long as DNS takes; :meth:`open` tells of a failure."""
        try:
            self._target = resolve(*self._address)
        except AddressError as error:
            self._target = error

    def open(self) -> None:
        """Begin to connect; the owner hears of it."""
        self._step(Step.OPEN)
        self._reader = LineReader(DOWN, MAX_LINE_BYTES)
        self._bytes_read = 0
        self._set_timer(OPEN_S, lambda: self.drop(f"No answer from {self._where}."))
        try:
            self.transport = self._connect()
        except AddressError as error:
            reason = str(error)
            self._set_timer(0, lambda: self.drop(reason))

    def open_later(self, at_least_s: float = 0.0) -> None:
        """Connect after a pause that grows with each failure."""
        pause_s = at_least_s + self._pause_s * random.uniform(0.5, 1.5)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._set_timer(pause_s, self.open)

    def greet(self, hello: bytes) -> None:
        """Say this `hello`."""
        self._step(Step.HELLO)
        self.write(hello)

    def attach(self, attach: bytes, *, follow: bool) -> None:
        """Say this `attach`, with this `follow`."""
        self._step(Step.FOLLOW if follow else Step.STAND_BY)
        self.write(attach)

    def _step(self, step: Step) -> None:
        """Go on to the next state.

        Raises:
            PeerError: the server says what was not asked for. A step of our own that is not in the table is a bug.
        """
        following = TRANSITIONS[self.state].get(step)
        if following is None:
            assert step in (Step.WELCOMED, Step.ATTACHED), f"{step.name} is impossible: {self!r}"
            raise PeerError(f"it says {step.name.lower()} without having been asked")
        self.state = following

    def _accepted(self, step: Step) -> bool:
        """The server has answered `hello` or `attach`; return whether the connection is new to the session."""
        is_new = not self.is_up
        self._step(step)
        if is_new:
            self._pause_s = FIRST_PAUSE_S
            self._pulse = Pulse(self._loop.now_ns())
            self._set_timer(CHECK_S, self._check)
        if self.carries:
            self.given_id = 0  # everything that is pending goes out on it
        return is_new

    def _connect(self) -> StampingTransport:
        if not isinstance(self._target, Target):
            raise self._target
        return StampingTransport.connect(
            self._loop,
            self._target,
            on_data=self._on_data,
            on_writable=self._on_writable,
            on_lost=self._on_lost,
            congestion=self._congestion,
            tls=None if self._tls is None else _private(self._tls, self._address[0]),
        )

    # What goes out on it.

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

    def _on_writable(self) -> None:
        """The first time: connected. Later: the kernel takes bytes again."""
        if self.state is State.CONNECTING:
            self._owner.on_connected(self)
        elif self.transport is not None:
            del self._unsent[: self.transport.send(self._unsent)]
            if self._unsent:
                self.transport.want_writable()
            else:
                self._owner.on_writable(self)

    # What comes in on it.

    def _on_data(self, data: bytes) -> None:
        assert self.transport is not None
        arrival = self.transport.arrival
        self._pulse.heard(arrival.seen_ns)
        begin, line_end = self._bytes_read, 0
        self._bytes_read += len(data)
        messages = self._reader.feed(data)
        # The stamp is that of the last segment, which belongs to the last line if nothing comes after it.
        exact_index = len(messages) - 1 if arrival.stamped and data.endswith(b"\n") else -1
        try:
            for index, message in enumerate(messages):
                line_end = data.find(b"\n", line_end) + 1
                if self.transport is None:
                    return  # closed by what an earlier message led to
                if type(message) in _ABOUT_CONNECTIONS and self._is_about_us(message):
                    continue
                self._owner.on_message(self, message, arrival, index == exact_index, begin + line_end)  # type: ignore[arg-type]
        except PeerError as error:
            self.drop(f"The server cannot be understood: {error}")

    def _is_about_us(self, message: Down | BadLine) -> bool:
        """Take what is about this connection and not about the session; whether it is that."""
        match message:
            case BadLine(_, reason):
                raise PeerError(reason)
            case Error(_, reason) if not self.is_up:
                self.drop(reason)  # it will not let us in
            case Welcome():
                self._accepted(Step.WELCOMED)
                self._owner.on_welcome(self, message)
            case Attached():
                is_new = self._accepted(Step.ATTACHED)
                self._owner.on_attached(self, message, is_new)
            case _:
                return False
        return True

    def _on_lost(self, reason: str) -> None:
        is_connected = self.state is not State.CONNECTING
        what = "The connection broke" if is_connected else f"Cannot connect to {self._where}"
        self.drop(f"{what}: {reason}.")

    def _check(self) -> None:
        """Is it alive? Ask after a while of quiet, give up after a while of silence."""
        now_ns = self._loop.now_ns()
        silent_ns = self._pulse.silent_ns(now_ns)
        if silent_ns > self._patience_ns():
            self.drop(f"No answer for {silent_ns / 1e9:.1f} s.")
            return
        self._set_timer(CHECK_S, self._check)
        if self._pulse.quiet_ns(now_ns) >= QUIET_NS:
            self.ask(Ping())

    def _patience_ns(self) -> int:
        if self.transport is None or not self._owner.has_reserve(self):
            return SILENT_NS
        info = TcpInfo.of(self.transport.sock)
        if info is None or info.rtt_us is None or info.rttvar_us is None:
            return SILENT_NS
        return min(SILENT_NS, patience_ns(info.rtt_us, info.rttvar_us))

    # How it ends.

    def drop(self, reason: str) -> None:
        """Break the connection, or give up the attempt at one. The owner is told."""
        # With a reset, since we are coming back: an orderly end would be the end of the session.
        self.close(broken=True)
        self._owner.on_down(self, reason)

    def close(self, *, broken: bool = False) -> None:
        """Free everything now. With `broken`, the server shall take it for a connection that broke."""
        self._cancel_timer()
        if self.transport is not None:
            self._owner.on_ending(self, TcpInfo.of(self.transport.sock))
            if broken:
                self.transport.abort()
            self.transport.close()
            self.transport = None
        self._unsent.clear()
        self.state = State.DOWN
        self.given_id = 0

    def _set_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay_s, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _private(context: "SSLContext", host: str) -> "Tls":
    from chat.net.tls import Tls  # whoever chats without need not load it

    return Tls(context, host)
