"""Transport: one nonblocking TCP connection on a Loop.

It keeps no queue: :meth:`Transport.send` says how much the kernel took, and the owner decides what to do with the rest.
(With TLS, the rest of a record that the kernel took a part of must be kept; nothing more is taken until it has gone.)
This is the only place that sees the errors of a socket; its owner sees a connection that was lost, and why.
"""

import contextlib
import errno
import os
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

from chat.net.loop import Loop, Timer
from chat.protocol.errors import AddressError, TlsError
from chat.words import reason_of

if TYPE_CHECKING:
    from chat.net.tls import Tls

Address = tuple[str, int]

#: A peer that acknowledges nothing, or takes nothing of what waits for it, for so long is dead.
DEAD_PEER_MS = 30_000
#: An idle connection is probed after so long, and so often: it may be dead without anybody having tried it.
KEEPALIVE_S = 15
#: The kernel is not given more than so many bytes ahead of what TCP may send: enough for any rate that we reach, and
#: what a reader that does not read occupies. Four times as much, for 10,000 of them, is more than the kernel has for
#: all TCP of the machine (`tcp_mem`): then it drops segments of everybody.
UNSENT_BYTES = 32_768

_TCP_NOTSENT_LOWAT = 25
#: Most bytes of one read.
READ_BYTES = 65_536
#: Plain bytes of one TLS record (RFC 8446, 5.1).
RECORD_BYTES = 16_384
_OPTIONS = (
    # Nagle's algorithm and delayed acknowledgements together hold small messages back for 40 ms.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)
_LINUX_OPTIONS = (
    (socket.IPPROTO_TCP, 18, DEAD_PEER_MS),  # TCP_USER_TIMEOUT
    (socket.IPPROTO_TCP, 4, KEEPALIVE_S),  # TCP_KEEPIDLE
    (socket.IPPROTO_TCP, 5, KEEPALIVE_S),  # TCP_KEEPINTVL
    (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES),
)


class Target(NamedTuple):
    """Where to connect to, or listen: a numeric address and the family of sockets that it takes."""

    family: socket.AddressFamily
    #: With the scope of an IPv6 address, if it has one.
    address: Address | tuple[str, int, int, int]


def resolve(host: str, port: int) -> Target:
    """The first address of a host. A name may block for as long as DNS takes; a numeric address, in brackets or not,
    never does.

    Raises:
        AddressError: nobody knows this host.
    """
    if host[:1] + host[-1:] == "[]":
        host = host[1:-1]
    for family in (socket.AF_INET, socket.AF_INET6):
        # Not left to getaddrinfo: under gevent it waits for a thread, which the hub's own callbacks may not do.
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return Target(family, (host, port))
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except UnicodeError as error:  # in the words of a codec
        raise AddressError(f"Cannot find the host {host}: no host is called so.") from error
    except OSError as error:
        raise AddressError(f"Cannot find the host {host}: {reason_of(error)}.") from error
    return Target(family, address)  # type: ignore[arg-type]  # of these families it is nothing else


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


def _nothing(*_: object) -> None:
    """What a closed transport calls back."""


def set_up(sock: socket.socket) -> None:
    """Nonblocking, nothing held back, dead peers noticed. On Linux, accepted sockets inherit all but the first."""
    sock.setblocking(False)
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)
    for level, option, value in _LINUX_OPTIONS:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)


class Transport:
    """Calls back with data, when writable after :meth:`want_writable`, and once when the connection is lost.

    No callback comes from within a method of this class, nor after :meth:`close`. The socket has been through
    :func:`set_up`. With TLS, `on_writable` is not called before the handshake is done; and `on_records`, if there is
    one, is called instead of `on_data`, with what was read: the plain bytes of each record, which may be none, as in a
    handshake. The work is done as they are asked for; until all have been, nothing more may be read.
    """

    __slots__ = (
        "_connected",
        "_events",
        "_failure",
        "_finishing",
        "_loop",
        "_on_data",
        "_on_lost",
        "_on_records",
        "_on_writable",
        "_reading",
        "_records",
        "_sock",
        "_tls",
        "closed",
        "ended_by_peer",
        "wants_writable",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_data: Callable[[bytes], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[str], None],
        connected: bool = True,
        tls: "Tls | None" = None,
        on_records: Callable[[Iterator[bytes]], None] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_data = on_data
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._on_records = on_records
        self._connected = connected
        self._reading = True
        self.wants_writable = not connected
        self._failure: Timer | None = None
        self._tls = tls
        #: Of a record, or of the handshake: what the kernel has not taken yet.
        self._records = b""
        #: Whether the stream is to be ended once the records are gone.
        self._finishing = False
        self.closed = False
        #: Whether the peer ended the connection in order, rather than that it broke.
        self.ended_by_peer = False
        self._events = self._wanted_events()
        loop.add(sock, self._events, self._ready)

    @classmethod
    def connect(
        cls,
        loop: Loop,
        target: Target,
        *,
        on_data: Callable[[bytes], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[str], None],
        congestion: str | None = None,
        tls: "Tls | None" = None,
    ) -> Self:
        """Begin to connect; the first :attr:`on_writable` says that it has worked, `on_lost` that it has not.

        Args:
            congestion: name of the TCP congestion control to use.
            tls: makes the connection private.

        Raises:
            AddressError: the system refuses at once.
        """
        sock = socket.socket(target.family, socket.SOCK_STREAM)
        try:
            use_congestion_control(sock, congestion)
            set_up(sock)
            with contextlib.suppress(BlockingIOError):
                sock.connect(target.address)
            return cls(loop, sock, on_data=on_data, on_writable=on_writable, on_lost=on_lost, connected=False, tls=tls)
        except OSError as error:
            sock.close()
            where = "{} port {}".format(*target.address)
            raise AddressError(f"Cannot connect to {where}: {reason_of(error)}.") from error

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._connected else "connecting"
        return f"<Transport {state}, fd {self._sock.fileno()}>"

    @property
    def ready(self) -> bool:
        """Whether bytes can be sent: it is connected, and private if it is to be."""
        return self._connected and (self._tls is None or self._tls.ready)

    @property
    def handshake_ns(self) -> int:
        """CPU time that the handshake of TLS has taken so far."""
        return 0 if self._tls is None else self._tls.handshake_ns

    @property
    def sock(self) -> socket.socket:
        """The socket, to ask it questions."""
        return self._sock

    def send(self, data: bytes | bytearray) -> int:
        """Hand bytes to the kernel and return how many it took; none if it is full or there is no connection."""
        if self.closed or self._failure is not None or not self._connected:
            return 0
        return self._hand_over(data) if self._tls is None else self._send_private(self._tls, data)

    @property
    def raw_send(self) -> Callable[[bytes], int]:
        """The socket's own, or with TLS :meth:`send`. What it raises is for :meth:`not_sent`.

        To send something to a crowd means, after a pause, to wait for memory: this touches the least of it.
        """
        return self._sock.send if self._tls is None else self.send

    def _hand_over(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except OSError as error:
            self.not_sent(error)
            return 0

    def not_sent(self, error: OSError) -> None:
        """This is why nothing was sent: there was no room, or the connection is lost, of which our owner is told."""
        if not isinstance(error, BlockingIOError) and self._failure is None and not self.closed:
            # A reset after the peer's end of stream: what we sent met a process that is gone.
            self.ended_by_peer = error.errno == errno.EPIPE
            self._fail(reason_of(error))

    def _fail(self, reason: str) -> None:
        """Told from the loop, not from here: the caller is in the middle of something."""
        self._failure = self._loop.call_later(0, lambda: self._lose(reason))

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
        self._finishing = True
        if self._tls is None or self._push(self._tls.end()):
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with a reset: the peer shall take this for a connection that broke, not for one that has ended."""
        if not self.closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._tls = None  # whose last record would say that this is an orderly end
        self.close()

    def close(self) -> None:
        """Free everything now; safe to repeat."""
        if self.closed:
            return
        says_so = self._connected and self._failure is None and not self._finishing and not self._records
        if self._tls is not None and says_so:
            self._push(self._tls.end())
        self.closed = True
        if self._failure is not None:
            self._failure.cancel()
        if self._events:
            self._loop.remove(self._sock)
        self._sock.close()
        # They refer to our owner, who refers to us: a circle that only the garbage collector would find, which stops
        # everybody while it searches.
        self._on_data = self._on_records = self._on_writable = self._on_lost = _nothing

    def _wanted_events(self) -> int:
        # During a handshake the owner waits for its end, not for the kernel.
        writes = bool(self._records) or (self.wants_writable and (self.ready or not self._connected))
        return selectors.EVENT_READ * self._reading | selectors.EVENT_WRITE * writes

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
        if events & selectors.EVENT_WRITE and (self.wants_writable or self._records) and not self.closed:
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
            if self._tls is not None:
                self._push(self._tls.records())
                self._watch()
                return
        if self._records and not self._push(b""):
            return
        if self._finishing:
            self.finish()
        if self.wants_writable:
            self.want_writable(False)
            self._on_writable()

    def _read(self) -> None:
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(reason_of(error))
            return
        if self._tls is not None:
            self._read_private(self._tls, data)
        elif data:
            self._on_data(data)
        else:
            self.ended_by_peer = True
            self._lose("closed by the other end")

    # With TLS.

    def _send_private(self, tls: "Tls", data: bytes | bytearray) -> int:
        taken = 0
        while tls.ready and taken < len(data) and self._push(b""):
            record = data[taken : taken + RECORD_BYTES]
            try:
                self._push(tls.encrypt(record))
            except TlsError as error:
                self._fail(str(error))
                break
            taken += len(record)
        return taken

    def _push(self, records: bytes) -> bool:
        """Hand records to the kernel, and keep what it does not take; whether it took all there was."""
        self._records += records
        # What was lost is not tried again: the kernel would say that we wrote after an end.
        if self._records and self._failure is None:
            self._records = self._records[self._hand_over(self._records) :]
            self._watch()
        return not self._records

    def _read_private(self, tls: "Tls", data: bytes) -> None:
        if not data:
            self._lose("cut off: the other end did not say that this was the end")
            return
        records = self._decrypt(tls, data)
        if self._on_records is not None:
            self._on_records(records)
        elif plain := b"".join(records):
            self._on_data(plain)

    def _decrypt(self, tls: "Tls", data: bytes) -> Iterator[bytes]:
        try:
            for plain in tls.decrypt(data):
                if not plain:
                    self._push(tls.records())
                    self._watch()  # the handshake may be done
                yield plain
        except TlsError as error:
            self._push(tls.last_words())
            self._fail(str(error))
            yield b""
        if tls.ended:
            self._push(tls.end())
            self.ended_by_peer = True
            self._fail("closed by the other end")

    def _receive(self) -> bytes:
        return self._sock.recv(READ_BYTES)

    def _lose(self, reason: str) -> None:
        # Closed afterwards, so that the owner can ask the socket for its last TCP_INFO.
        self._on_lost(reason)
        self.close()
