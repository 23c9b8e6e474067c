"""What disturbed a trial: the stalls of its cores and the late times of its emulator, from its beginning on."""

import time

import pandas as pd

from loadtests.link.backends.backend import LatePeriod
from loadtests.samples import TABLES
from loadtests.stalls.intervals import Interval
from loadtests.stalls.meter import StallMeter


class TrialStalls:
    """Asks the meter for what it has found since this was made."""

    def __init__(self, meter: StallMeter) -> None:
        self._meter = meter
        self._began_ns = time.monotonic_ns()
        #: What the emulator has told; the latest answer holds all before.
        self.late: list[LatePeriod] = []

    @property
    def is_certain(self) -> bool:
        """Whether the meter has real-time priority; otherwise our own processes delay it too."""
        return self._meter.is_realtime

    @property
    def cores(self) -> list[Interval]:
        """When a core was taken from us, as far as that is certain."""
        if not self.is_certain:
            return []
        return [Interval(one.begin_ns, one.end_ns) for one in self._meter.stalls() if one.end_ns > self._began_ns]

    @property
    def emulator(self) -> list[Interval]:
        """When the emulator was late."""
        return [Interval(one.begin_ns, one.end_ns) for one in self.late if one.end_ns > self._began_ns]

    def share(self, begin_ns: int, end_ns: int) -> float:
        """The share of all cores' time between two moments that was taken from us."""
        taken_ns = sum(max(0, min(one.end_ns, end_ns) - max(one.begin_ns, begin_ns)) for one in self.cores)
        return taken_ns / max(1, end_ns - begin_ns) / max(1, len(self._meter.cores))

    def longest_ms(self, begin_ns: int) -> float:
        """The longest time that a core was taken, of those since then."""
        return max((one.end_ns - one.begin_ns for one in self.cores if one.end_ns > begin_ns), default=0) / 1e6

    def rows(self, start_ns: int) -> pd.DataFrame:
        """The rows of `stalls.csv`, times counted from `start_ns` (CLOCK_MONOTONIC)."""
        found = [(one.begin_ns, one.length_ns, f"core {one.core}") for one in self._meter.stalls()]
        found += [(one.begin_ns, one.end_ns - one.begin_ns, "emulator") for one in self.late]
        rows = [
            {"time_s": (begin_ns - start_ns) / 1e9, "length_ms": length_ns / 1e6, "where": where}
            for begin_ns, length_ns, where in sorted(found)
            if begin_ns + length_ns > self._began_ns
        ]
        return pd.DataFrame(rows, columns=list(TABLES["stalls"]))
