"""Impaired paths to a chat server, whoever makes them: what a trial does with them."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from loadtests.link.backends.backend import Backend, LatePeriod, LinkChange, LinkStats
from loadtests.link.measure.calibrate import LinkRow
from loadtests.link.model.profile import LinkProfile
from loadtests.stalls.intervals import Interval

_CALIBRATIONS = 3
#: Links are quiet when they carry no more than this in so much time; what is left may be a connection's last words.
_STRAY_BYTES, _QUIET_S = 1500, 0.1
_DRAINED_BY_S = 3.0


class Links(ABC):
    """The link of each path."""

    def __init__(self, links: Mapping[str, LinkProfile], backend: Backend) -> None:
        self.links = dict(links)
        self._backend = backend

    def __repr__(self) -> str:
        links = "; ".join(f"{path}: {link}" for path, link in self.links.items())
        return f"<{type(self).__name__} {self.backend}, {links}>"

    @property
    def backend(self) -> str:
        """What makes the links: `emulator`, `netem`, `none` or `interface`."""
        return self._backend.name

    @property
    def link_pid(self) -> int | None:
        """The process that carries the packets; None if the kernel does."""
        return self._backend.pid

    def calibrate(self, disturbances: Callable[[], list[Interval]] = list) -> list[LinkRow]:
        """Measure what the links really do; takes a few seconds and expects no other traffic.

        A link that is off is off each time; a busy moment of the machine is gone the next time. A machine that stalls
        then too does not rest, and a third time would tell no more.

        Args:
            disturbances: asked for the times in which the machine did not let us or the link run: probes that met one
                are measured anew.
        """
        for attempt in range(_CALIBRATIONS):
            rows = self._calibrate_once(disturbances)
            off = [row for row in rows if not row.within]
            if not off or (attempt and all(row.disturbed for row in off)):
                break
        return rows

    @abstractmethod
    def _calibrate_once(self, disturbances: Callable[[], list[Interval]]) -> list[LinkRow]:
        """The figures of every link."""

    def start(self, zero_ns: int | None = None) -> None:
        """Begin anew, so that the same seed makes the same decisions from here on, and let the timelines run.

        Args:
            zero_ns: second 0 of every timeline (CLOCK_MONOTONIC); may be past, then what is overdue happens at once.
        """
        self._backend.start(time.monotonic_ns() if zero_ns is None else zero_ns)

    def stop(self) -> None:
        """End the timelines: every link is as it begins, and can be calibrated again."""
        self._backend.stop()

    def drain(self) -> None:
        """Wait until the links carry next to nothing: what senders that have ended left behind, they still deliver.

        It gives up after some seconds, for the calibration that follows will tell.
        """
        longest_s = max(link.rtt_s + link.up.queue_s + link.down.queue_s for link in self.links.values())
        end_s = time.monotonic() + _DRAINED_BY_S + longest_s
        while time.monotonic() < end_s:
            before = self._carried_bytes()
            time.sleep(_QUIET_S + longest_s)
            if self._carried_bytes() - before <= _STRAY_BYTES:
                return

    def _carried_bytes(self) -> int:
        return sum(stats.delivered_bytes for stats in self.stats())

    def changes(self) -> list[LinkChange]:
        """What the timelines have changed since `start`."""
        return sorted(self._backend.changes(), key=lambda change: change.at_ns)

    def stats(self) -> list[LinkStats]:
        """What each path carried so far in each direction."""
        return self._backend.stats()

    def late(self) -> list[LatePeriod]:
        """When the emulator was late; empty if the kernel carries the packets."""
        return self._backend.late()

    def record(self, file: Path | None) -> None:
        """Begin to note in a file when packets from the server were taken and left, or end it (None).

        Only the emulator does, a :data:`CARRIED` for each packet; otherwise there is no file.
        """
        self._backend.record(file)

    def check(self) -> None:
        """Raises LinkError: a link does not work any more."""
        self._backend.check()
