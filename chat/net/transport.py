"""Transport: one nonblocking TCP connection on a Loop.

It keeps no queue: :meth:`Transport.send` says how much the kernel took, and the owner decides what to do with the rest.
This is the only place that sees the errors of a socket; its owner sees a connection that was lost, and why.
"""

import contextlib
import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from chat.net.loop import Loop, Timer
from chat.net.tcpinfo import TcpInfo
from chat.protocol.errors import AddressError

Address = tuple[str, int]

#: A peer that acknowledges nothing, or takes nothing of what waits for it, for so long is dead.
DEAD_PEER_MS = 30_000
#: An idle connection is probed after so long, and so often: it may be dead without anybody having tried it.
KEEPALIVE_S = 15
#: The kernel is not given more than so many bytes ahead of what TCP may send: enough for any rate, and what memory a
#: reader that does not read can occupy.
UNSENT_BYTES = 131_072

#: SO_TIMESTAMPNS and its control message on Linux; Python has no names for them.
_SO_TIMESTAMPNS = 35
_TCP_NOTSENT_LOWAT = 25
#: Nine counters of a socket's memory (sock_diag(7)); the first is what it has received and nobody has read.
_SO_MEMINFO, _MEMINFO = 55, struct.Struct("=9I")
_TIMESPEC = struct.Struct("@ll")
_READ_BYTES = 65_536
#: Data read within this time of its stamp has not waited for a lost segment.
_PROMPT_NS = 1_000_000
#: Two readings of clocks further apart than this had somebody else run between them.
_READ_CLOCKS_NS = 20_000
#: Where reading a clock takes long by itself, reading it again does not help.
_CLOCK_READINGS = 3
_LINUX_OPTIONS = (
    (socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1),
    (socket.IPPROTO_TCP, 18, DEAD_PEER_MS),  # TCP_USER_TIMEOUT
    (socket.IPPROTO_TCP, 4, KEEPALIVE_S),  # TCP_KEEPIDLE
    (socket.IPPROTO_TCP, 5, KEEPALIVE_S),  # TCP_KEEPINTVL
    (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES),
)


class Arrival(NamedTuple):
    """When bytes came, CLOCK_MONOTONIC in ns."""

    #: The kernel's receive time of the last segment among them; the read's own time if the kernel gave none.
    received_ns: int
    #: When this process read them.
    seen_ns: int
    #: Whether `received_ns` is the kernel's.
    stamped: bool


class Target(NamedTuple):
    """Where to connect to, or listen: a numeric address and the family of sockets that it takes."""

    family: socket.AddressFamily
    address: Address


def resolve(host: str, port: int) -> Target:
    """The first address of a host. A name may block for as long as DNS takes; a numeric address never does.

    Raises:
        AddressError: nobody knows this host.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        # Not left to getaddrinfo: under gevent it waits for a thread, which the hub's own callbacks may not do.
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return Target(family, (host, port))
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise AddressError(f"Cannot find the host {host}: {reason_of(error)}.") from error
    return Target(family, (str(address[0]), int(address[1])))


def reason_of(error: BaseException) -> str:
    """The system's own words, without the number and in lower case."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def use_congestion_control(sock: socket.socket, name: str | None) -> None:
    """Choose TCP's congestion control by the kernel's name for it; None leaves the system's default.

    Raises:
        AddressError: this system does not offer it, or not to us; the socket is closed.
    """
    if name is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError as error:
        sock.close()
        raise AddressError(f"TCP congestion control {name} cannot be used here: {reason_of(error)}.") from error


class Transport:
    """Calls back with data, with room to write after :meth:`want_writable`, and once when the connection is lost.

    No callback comes from within a method of this class, nor after :meth:`close`.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_data: Callable[[bytes, Arrival], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[str], None],
        connected: bool = True,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_data = on_data
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._connected = connected
        self._reading = True
        self.wants_writable = not connected
        self._failure: Timer | None = None
        #: Segments that came out of order, as of the last look.
        self._out_of_order = 0
        #: Whether more data waited behind a lost segment after the last look.
        self._waits_still = False
        self.closed = False
        #: Whether the peer ended the connection in order, rather than that it broke.
        self.ended_by_peer = False
        sock.setblocking(False)
        # Nagle's algorithm and delayed acknowledgements together hold small messages back for 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for level, option, value in _LINUX_OPTIONS:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)
        self._events = self._wanted_events()
        loop.add(sock, self._events, self._ready)

    @classmethod
    def connect(
        cls,
        loop: Loop,
        target: Target,
        *,
        on_data: Callable[[bytes, Arrival], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[str], None],
        congestion: str | None = None,
    ) -> "Transport":
        """Begin to connect; the first :attr:`on_writable` says that it has worked, `on_lost` that it has not.

        Args:
            congestion: name of the TCP congestion control to use.

        Raises:
            AddressError: the system refuses at once.
        """
        sock = socket.socket(target.family, socket.SOCK_STREAM)
        try:
            use_congestion_control(sock, congestion)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(target.address)
            return cls(loop, sock, on_data=on_data, on_writable=on_writable, on_lost=on_lost, connected=False)
        except OSError as error:
            sock.close()
            where = "{} port {}".format(*target.address)
            raise AddressError(f"Cannot connect to {where}: {reason_of(error)}.") from error

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._connected else "connecting"
        return f"<Transport {state}, fd {self._sock.fileno()}>"

    @property
    def sock(self) -> socket.socket:
        """The socket, to ask it questions."""
        return self._sock

    def send(self, data: bytes | bytearray) -> int:
        """Hand bytes to the kernel and return how many it took; none if it is full or there is no connection."""
        if self.closed or self._failure is not None or not self._connected:
            return 0
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            # Told from the loop, not from here: the caller is in the middle of something.
            reason = reason_of(error)
            # A reset after the peer's end of stream: what we sent met a process that is gone.
            self.ended_by_peer = error.errno == errno.EPIPE
            self._failure = self._loop.call_later(0, lambda: self._lose(reason))
            return 0

    def want_writable(self, wanted: bool = True) -> None:
        """Whether to call back when the kernel takes bytes again."""
        self.wants_writable = wanted
        self._watch()

    def read_on(self, reading: bool) -> None:
        """Whether to read. What the peer sends in the meantime waits in the kernel, and then with the peer."""
        self._reading = reading
        self._watch()

    def finish(self) -> None:
        """Say that nothing more will be sent. What the peer still sends is read, so that it gets our last bytes."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with a reset: the peer shall take this for a connection that broke, not for one that has ended."""
        if not self.closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Free everything now; safe to repeat."""
        if self.closed:
            return
        self.closed = True
        if self._failure is not None:
            self._failure.cancel()
        if self._events:
            self._loop.remove(self._sock)
        self._sock.close()

    def _wanted_events(self) -> int:
        return selectors.EVENT_READ * self._reading | selectors.EVENT_WRITE * self.wants_writable

    def _watch(self) -> None:
        events = self._wanted_events()
        if self.closed or events == self._events:
            return
        if not events:
            self._loop.remove(self._sock)
        elif not self._events:
            self._loop.add(self._sock, events, self._ready)
        else:
            self._loop.modify(self._sock, events, self._ready)
        self._events = events

    def _ready(self, events: int) -> None:
        # Another callback of this turn may have closed us, or changed what we wait for.
        if events & selectors.EVENT_WRITE and self.wants_writable and not self.closed:
            self._writable()
        # After a failed send, reading would look like an orderly end: the kernel reports its error only once.
        readable = self._reading and self._connected and self._failure is None and not self.closed
        if events & selectors.EVENT_READ and readable:
            self._read()

    def _writable(self) -> None:
        if not self._connected:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._lose(os.strerror(error).lower())
                return
            self._connected = True
        self.want_writable(False)
        self._on_writable()

    def _read(self) -> None:
        try:
            data, control, _, _ = self._sock.recvmsg(_READ_BYTES, 64)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(reason_of(error))
            return
        if data:
            self._on_data(data, self._corrected(_arrival(control)))
        else:
            self.ended_by_peer = True
            self._lose("closed by the other end")

    def _corrected(self, arrival: Arrival) -> Arrival:
        """The stamp is that of the last segment read. If one before it was lost, the data waited for its second coming.

        Then the stamp tells when the last segment came, not when it could be read, and the read's own time is nearer.
        Data waits behind a lost segment if some came out of order since the last look, or if memory was still in use
        when everything that could be read had been.
        """
        if arrival.seen_ns - arrival.received_ns < _PROMPT_NS:
            return arrival
        info = TcpInfo.of(self._sock)
        before, self._out_of_order = self._out_of_order, (info and info.rcv_ooopack) or 0
        had_waited = self._waits_still or self._out_of_order != before
        self._waits_still = had_waited and _received_bytes(self._sock) > 0
        return Arrival(arrival.seen_ns, arrival.seen_ns, False) if had_waited else arrival

    def _lose(self, reason: str) -> None:
        # Closed afterwards, so that the owner can ask the socket for its last TCP_INFO.
        self._on_lost(reason)
        self.close()


def _received_bytes(sock: socket.socket) -> int:
    """Memory of what has come and is not read, in order or not; 0 where the system does not tell."""
    try:
        received, *_ = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    return int(received)


def _arrival(control: list[tuple[int, int, bytes]]) -> Arrival:
    """The kernel stamps with CLOCK_REALTIME; mapped at once, a later step of that clock does no harm."""
    seen_ns = time.monotonic_ns()
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            received_ns = seconds * 1_000_000_000 + nanoseconds - _wall_ahead_ns(seen_ns)
            return Arrival(min(seen_ns, received_ns), seen_ns, True)
    return Arrival(seen_ns, seen_ns, False)


def _wall_ahead_ns(before_ns: int) -> int:
    """How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, which was read just before as `before_ns`.

    The scheduler may let others run between two readings of clocks: then they are read again.
    """
    for _again in range(_CLOCK_READINGS):
        wall_ns, after_ns = time.time_ns(), time.monotonic_ns()
        if after_ns - before_ns < _READ_CLOCKS_NS:
            break
        before_ns = after_ns
    return wall_ns - before_ns
