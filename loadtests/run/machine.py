"""CPU and memory of the processes of a trial, of the whole machine, and of those that are not ours, once a second."""

import heapq
import time
from collections.abc import Mapping

import pandas as pd
import psutil

from loadtests.samples import TABLES
from loadtests.stalls.host import Host, run_delay_ns

#: So many of the processes that are not ours become rows, the busiest, if they use this much of a core.
_OTHERS, _LEAST_PERCENT = 3, 5.0


class MachineSampler:
    """Samples processes with their children; one that has ended is no longer sampled."""

    def __init__(self, pids: dict[str, int], host: Host) -> None:
        """`pids`: name in the table → process."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._host = host
        self._rows: list[dict[str, object]] = []
        self._at_ns = time.monotonic_ns()
        self._seen = self._first = host.look()
        self._first_ns = self._at_ns
        self._delays_ns = {name: run_delay_ns(pid) for name, pid in pids.items()}
        self._take()  # CPU percentages count from here
        self._rows.clear()

    def sample(self) -> None:
        """Add a row for each process, about the time since the last call."""
        self._take()

    def rows(self, start_ns: int) -> pd.DataFrame:
        """The rows of `machine.csv`, times counted from `start_ns` (CLOCK_MONOTONIC)."""
        rows = pd.DataFrame(self._rows, columns=["at_ns", *list(TABLES["machine"])[2:]])
        return rows.assign(time_s=(rows["at_ns"] - start_ns) / 1e9)

    def steal_share(self) -> float:
        """The share of all cores' time that the host withheld since the beginning."""
        seconds = (self._at_ns - self._first_ns) / 1e9
        return (self._seen.steal_s - self._first.steal_s) / seconds / (psutil.cpu_count() or 1)

    def others_percent(self) -> dict[str, float]:
        """The busiest processes that are not ours: name → CPU used since the beginning, 100 is one core."""
        return _busiest(self._seen.foreign_s, self._first.foreign_s, (self._at_ns - self._first_ns) / 1e9)

    def _take(self) -> None:
        before, before_ns = self._seen, self._at_ns
        self._seen, self._at_ns = self._host.look(), time.monotonic_ns()
        seconds = max(self._at_ns - before_ns, 1) / 1e9
        cores = psutil.cpu_count() or 1
        self._add(
            "machine",
            cpu_percent=psutil.cpu_percent() * cores,
            steal_percent=(self._seen.steal_s - before.steal_s) / seconds * 100,
            pressure_percent=(self._seen.pressure_s - before.pressure_s) / seconds * 100,
            throttled_ms=(self._seen.throttled_s - before.throttled_s) * 1e3,
        )
        for name, process in self._processes.items():
            try:
                figures = {
                    "cpu_percent": process.cpu_percent(),
                    "rss_bytes": process.memory_info().rss,
                    "descriptors": process.num_fds(),
                }
            except psutil.NoSuchProcess:
                continue
            delay_ns = run_delay_ns(process.pid)
            run_delay_ms = (delay_ns - self._delays_ns[name]) / 1e6
            self._delays_ns[name] = delay_ns
            self._add(name, **figures, run_delay_ms=run_delay_ms)
        for name, cpu_percent in _busiest(self._seen.foreign_s, before.foreign_s, seconds).items():
            self._add(f"other: {name}", cpu_percent=cpu_percent)

    def _add(self, process: str, **figures: object) -> None:
        self._rows.append({"at_ns": self._at_ns, "process": process} | figures)


def _busiest(now_s: Mapping[str, float], before_s: Mapping[str, float], seconds: float) -> dict[str, float]:
    percents = {name: (used_s - before_s.get(name, 0.0)) / seconds * 100 for name, used_s in now_s.items()}
    first = heapq.nlargest(_OTHERS, percents.items(), key=lambda item: item[1])
    return {name: percent for name, percent in first if percent >= _LEAST_PERCENT}
