"""Stamps: when bytes came, by the kernel's clock (SO_TIMESTAMPNS), for those who want to know."""

import contextlib
import socket
import struct
import time
from typing import Any, NamedTuple

from chat.net.loop import Loop
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import READ_BYTES, Transport

#: SO_TIMESTAMPNS and its control message on Linux; Python has no names for them.
_SO_TIMESTAMPNS = 35
#: Nine counters of a socket's memory (sock_diag(7)); the first is what it has received and nobody has read.
_SO_MEMINFO, _MEMINFO = 55, struct.Struct("=9I")
_TIMESPEC = struct.Struct("@ll")
#: Room for one control message.
_CONTROL_BYTES = 64
#: Data read within this time of its stamp has not waited for a lost segment.
_PROMPT_NS = 1_000_000
#: Two readings of clocks further apart than this had somebody else run between them.
_READ_CLOCKS_NS = 20_000
#: Where reading a clock takes long by itself, reading it again does not help.
_CLOCK_READINGS = 3
#: CLOCK_REALTIME stays as far ahead of CLOCK_MONOTONIC as it is, unless it is set, or the computer slept. What differs
#: by more was set, or badly read.
_CLOCK_SET_NS = 1_000_000


class Arrival(NamedTuple):
    """When bytes came, CLOCK_MONOTONIC in ns."""

    #: The kernel's receive time of the last segment among them; the read's own time if the kernel gave none.
    received_ns: int
    #: When this process read them.
    seen_ns: int
    #: Whether `received_ns` is the kernel's.
    stamped: bool


class StampingTransport(Transport):
    """A transport that knows when the data came that it calls back with: :attr:`arrival`. Each read costs more."""

    __slots__ = ("_out_of_order", "_waits_still", "_wall_ahead_ns", "arrival")

    def __init__(self, loop: Loop, sock: socket.socket, **options: Any) -> None:
        super().__init__(loop, sock, **options)
        #: Of the data that was handed over last.
        self.arrival = Arrival(0, 0, False)
        #: Segments that came out of order, as of the last look.
        self._out_of_order = 0
        #: Whether more data waited behind a lost segment after the last look.
        self._waits_still = False
        #: As of the last look.
        self._wall_ahead_ns = _wall_ahead_ns(time.monotonic_ns())
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def _receive(self) -> bytes:
        data, control, _, _ = self._sock.recvmsg(READ_BYTES, _CONTROL_BYTES)
        if data:
            self.arrival = self._corrected(self._arrival(control))
        return data

    def _arrival(self, control: list[tuple[int, int, bytes]]) -> Arrival:
        """The kernel stamps with CLOCK_REALTIME; mapped at once, a later step of that clock does no harm.

        A step since the last read may have come before the stamp or after it: then nobody knows what the stamp means.
        """
        seen_ns = time.monotonic_ns()
        stamp_ns = _stamp_ns(control)
        if stamp_ns is None:
            return Arrival(seen_ns, seen_ns, False)
        before_ns, self._wall_ahead_ns = self._wall_ahead_ns, _wall_ahead_ns(seen_ns)
        if abs(self._wall_ahead_ns - before_ns) > _CLOCK_SET_NS:
            return Arrival(seen_ns, seen_ns, False)
        return Arrival(min(seen_ns, stamp_ns - self._wall_ahead_ns), seen_ns, True)

    def _corrected(self, arrival: Arrival) -> Arrival:
        """The stamp is that of the last segment read: wrong if the data waited for a retransmission of one before it.

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


def _received_bytes(sock: socket.socket) -> int:
    """Memory of what has come and is not read, in order or not; 0 where the system does not tell."""
    try:
        received, *_ = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    return int(received)


def _stamp_ns(control: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None


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
