"""CPU and memory of the processes of a trial, and of the whole machine, once a second."""

import time

import pandas as pd
import psutil

from loadtests.samples import TABLES


class MachineSampler:
    """Samples processes with their children; one that has ended is no longer sampled."""

    def __init__(self, pids: dict[str, int]) -> None:
        """`pids`: name in the table → process."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._rows: list[dict[str, object]] = []
        self._take()  # CPU percentages count from here
        self._rows.clear()

    def sample(self) -> None:
        """Add a row for each process, about the time since the last call."""
        self._take()

    def rows(self, start_ns: int) -> pd.DataFrame:
        """The rows of `machine.csv`, times counted from `start_ns` (CLOCK_MONOTONIC)."""
        rows = pd.DataFrame(self._rows, columns=["at_ns", *list(TABLES["machine"])[2:]])
        return rows.assign(time_s=(rows["at_ns"] - start_ns) / 1e9)

    def _take(self) -> None:
        now_ns = time.monotonic_ns()
        cores = psutil.cpu_count() or 1
        machine_percent = psutil.cpu_percent() * cores
        self._rows.append({"at_ns": now_ns, "process": "machine", "cpu_percent": machine_percent})
        for name, process in self._processes.items():
            try:
                cpu_percent, rss_bytes = process.cpu_percent(), process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self._rows.append({"at_ns": now_ns, "process": name, "cpu_percent": cpu_percent, "rss_bytes": rss_bytes})
