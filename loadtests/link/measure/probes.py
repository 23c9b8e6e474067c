"""Small UDP packets sent across every path in both directions at a steady pace, and when each arrived.

One process holds a socket in each namespace, and both read the same clock, so one-way delays are true ones. The kernel
says when a probe arrived: however late this process reads it, that is not the link's.
"""

import contextlib
import heapq
import math
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from loadtests.link.sandbox.namespaces import Namespace
from loadtests.link.sandbox.topology import CLIENT, SERVER, client_address, server_address

_PORT = 9  # discard
_PAYLOAD = struct.Struct("!IQ")  # sequence number, time of sending in ns
#: The kernel's receive time, CLOCK_REALTIME; Python has no name for it.
_SO_TIMESTAMPNS = 35
_READ_BYTES = 2048
_TIMESPEC = struct.Struct("@ll")
#: Size of a probe as an IP packet: IPv4 and UDP headers and the payload.
PROBE_BYTES = 20 + 8 + _PAYLOAD.size
#: How long after the slowest link's delay a probe still counts as late rather than lost.
_GRACE_S = 0.3


@dataclass
class ProbeStream:
    """The probes of one direction of one path: how they are sent, and what became of them."""

    path: str
    #: `up` (client → server) or `down`.
    direction: str
    count: int
    interval_s: float
    #: How long one can take to arrive.
    longest_s: float
    #: In order of arrival: (sequence number, one-way delay in ns).
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    #: When each was sent, by its sequence number (CLOCK_MONOTONIC).
    sent_ns: dict[int, int] = field(default_factory=dict)
    #: By how much (s) the machine may have delayed them: not at all, a little where it stalled often, or no matter how
    #: much if too few are left without those that met a stall.
    excused_s: float = 0.0

    @property
    def arrived(self) -> int:
        """How many arrived at least once."""
        return len({sequence for sequence, _ in self.arrivals})


def run_probes(streams: list[ProbeStream]) -> None:
    """Send all probes of all streams at once, and note the arrivals in each."""
    with contextlib.ExitStack() as open_sockets:
        ends = {path: open_ends(path, open_sockets) for path in {stream.path for stream in streams}}
        receivers = {}
        start_s = time.monotonic()
        due: list[tuple[float, int, int]] = []  # when, which stream, which probe
        for index, stream in enumerate(streams):
            receivers[ends[stream.path][stream.direction == "up"]] = stream
            heapq.heappush(due, (start_s, index, 0))
        end_s = math.inf
        while (now_s := time.monotonic()) < end_s and any(stream.arrived < stream.count for stream in streams):
            readable, _, _ = select.select(receivers, (), (), max(0, (due[0][0] if due else end_s) - now_s))
            for receiver in readable:
                _receive(receiver, receivers[receiver])
            while due and due[0][0] <= time.monotonic():
                when_s, index, sequence = heapq.heappop(due)
                stream = streams[index]
                stream.sent_ns[sequence] = time.monotonic_ns()
                ends[stream.path][stream.direction == "down"].send(_PAYLOAD.pack(sequence, time.time_ns()))
                if sequence + 1 < stream.count:
                    # After a pause of this process the probes must not come in a heap, which a narrow link would drop.
                    next_s = max(when_s + stream.interval_s, time.monotonic() + stream.interval_s / 2)
                    heapq.heappush(due, (next_s, index, sequence + 1))
            if not due and end_s == math.inf:
                end_s = time.monotonic() + max(stream.longest_s for stream in streams) + _GRACE_S


def open_ends(path: str, open_sockets: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """The client's and the server's socket on `path`, connected to each other."""
    sockets = []
    addresses = (client_address(path), server_address(path))
    for name, own, peer in ((CLIENT, *addresses), (SERVER, *reversed(addresses))):
        with Namespace(name).entered():
            end = open_sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        end.bind((own, _PORT))
        end.connect((peer, _PORT))
        sockets.append(end)
    return sockets[0], sockets[1]


def _receive(receiver: socket.socket, stream: ProbeStream) -> None:
    for payload, arrived_ns in arrivals(receiver):
        sequence, sent_ns = _PAYLOAD.unpack(payload)
        stream.arrivals.append((sequence, arrived_ns - sent_ns))


def arrivals(receiver: socket.socket) -> Iterator[tuple[bytes, int]]:
    """What waits to be read, and when the kernel received it (CLOCK_REALTIME in ns)."""
    with contextlib.suppress(BlockingIOError):
        while True:
            payload, ((_, _, stamp),), _, _ = receiver.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
            seconds, nanoseconds = _TIMESPEC.unpack(stamp)
            yield payload, seconds * 1_000_000_000 + nanoseconds
