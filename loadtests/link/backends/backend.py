"""What every way of making a link real has in common."""

import struct
from pathlib import Path
from typing import Literal, Protocol

import msgspec

#: A packet with data that the server sent: the number of its path (as in `PATHS`), when the emulator took it and when
#: it left (CLOCK_MONOTONIC in ns).
CARRIED = struct.Struct("<Bqq")

#: What a user asks for; `auto` takes what the kernel and the links allow.
BackendName = Literal["auto", "emulator", "netem", "none"]


class LinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """What one direction of one path carried so far."""

    path: str
    #: `up` (client → server) or `down`.
    direction: str
    delivered_packets: int
    #: Bytes of IP packets.
    delivered_bytes: int
    #: Packets lost on purpose (loss, full queue) or because the machine could not keep up.
    dropped_packets: int
    #: 99 % of the packets left the emulator at most this long after their time; None if it is the kernel that waits.
    lateness_p99_us: float | None = None


class LinkChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change that a link's timeline made."""

    #: CLOCK_MONOTONIC when it happened.
    at_ns: int
    path: str
    direction: str
    #: What the direction does from then on.
    text: str


class LatePeriod(msgspec.Struct):
    """A time in which whoever carries the packets was late by more than a millisecond (CLOCK_MONOTONIC)."""

    #: When the first late packet was due.
    begin_ns: int
    #: When the last one left.
    end_ns: int


class Backend(Protocol):
    """Impaired paths between the client's and the server's namespace."""

    name: str
    #: The namespaces it needs; they exist from before `open` until after `close`.
    hosts: tuple[str, ...]
    #: The process that carries the packets, once open; None if the kernel does.
    pid: int | None

    def open(self) -> None:
        """Build the paths; raises LinkError: this machine cannot, or what was built is not what was asked for."""
        ...

    def check(self) -> None:
        """Raises LinkError: the link does not work any more."""
        ...

    def start(self, zero_ns: int) -> None:
        """Begin anew, randomness included: `zero_ns` (CLOCK_MONOTONIC) is second 0 of every timeline."""
        ...

    def stop(self) -> None:
        """Let no timeline go on: every link is again as it begins."""
        ...

    def changes(self) -> list[LinkChange]:
        """What the timelines have changed since `start`."""
        ...

    def stats(self) -> list[LinkStats]:
        """What was carried so far, per path and direction."""
        ...

    def late(self) -> list[LatePeriod]:
        """When packets left late, as far as that can be known; the kernel does not tell."""
        ...

    def record(self, file: Path | None) -> None:
        """Begin to write a :data:`CARRIED` for each packet to this file, or end it; the kernel does not tell."""
        ...

    def close(self) -> None:
        """Undo `open`, however far it got."""
        ...
