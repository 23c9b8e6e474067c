"""What else the machine did: CPU time that its host withheld, pressure, throttling, and other people's processes.

It sees all processes of the machine even from inside the laboratory's namespaces, if it was made before those.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from chat.words import visible

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: The parent of the kernel's own threads, which also carry our packets.
_KTHREADD = 2


class Seen(NamedTuple):
    """What the kernel had counted until some moment; 0 for what this machine does not count."""

    #: CPU time that the host gave to others, of all cores together.
    steal_s: float
    #: Time in which somebody waited for a core (PSI, `some`).
    pressure_s: float
    #: Time in which our control group was not allowed to run.
    throttled_s: float
    #: CPU time of others' processes by name, since the first look.
    foreign_s: Mapping[str, float]


class Host:
    """The machine as seen from outside the laboratory; ours is what descends from the process that made this."""

    def __init__(self) -> None:
        self._own = os.getpid()
        try:
            self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # not Linux
            self._proc = -1
        self._used_s: dict[int, float] | None = None
        self._foreign_s: dict[str, float] = defaultdict(float)
        self._group = self._read("self/cgroup").rpartition("::")[2].strip().lstrip("/")

    def look(self) -> Seen:
        """All that is known now."""
        steal = self._read("stat").partition("\n")[0].split()[8:9]
        pressure_us = _number(self._read("pressure/cpu").partition("\n")[0], "total=")
        throttled_us = _number(_read(f"/sys/fs/cgroup/{self._group}/cpu.stat"), "throttled_usec ")
        steal_s = int(steal[0]) / _TICKS_PER_S if steal else 0.0
        return Seen(steal_s, pressure_us / 1e6, throttled_us / 1e6, self._look_at_others())

    def _look_at_others(self) -> Mapping[str, float]:
        """What others have used; of one that has ended, what it had used when it was last seen."""
        if self._proc < 0:
            return {}
        parents: dict[int, int] = {}
        used: dict[int, tuple[str, float]] = {}
        for name in os.listdir(self._proc):
            if name.isdigit() and (text := self._read(f"{name}/stat")):
                head, _, tail = text.rpartition(")")
                fields = tail.split()
                parents[int(name)] = int(fields[1])
                used[int(name)] = visible(head.partition("(")[2]), (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        before_s = self._used_s
        for pid, (command, used_s) in used.items():
            if before_s is not None and self._is_foreign(pid, parents):
                self._foreign_s[command] += max(0.0, used_s - before_s.get(pid, 0.0))
        self._used_s = {pid: used_s for pid, (_, used_s) in used.items()}
        return dict(self._foreign_s)

    def _is_foreign(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents:
            if pid in (self._own, _KTHREADD):
                return False
            pid = parents[pid]
        return True

    def _read(self, name: str) -> str:
        return _read(name, self._proc) if self._proc >= 0 else ""


def run_delay_ns(pid: int | str = "self") -> int:
    """How long a process has been ready to run and waited for a core so far; 0 if it is not counted, or has ended."""
    fields = _read(f"/proc/{pid}/schedstat").split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(name: str, folder: int | None = None) -> str:
    with contextlib.suppress(OSError):
        file = os.open(name, os.O_RDONLY, dir_fd=folder)
        try:
            return os.read(file, 1 << 16).decode(errors="replace")
        finally:
            os.close(file)
    return ""


def _number(text: str, name: str) -> int:
    """The number behind a name; 0 without."""
    digits = text.partition(name)[2].split()[:1]
    return int(digits[0]) if digits else 0
