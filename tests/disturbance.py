"""Whether the machine did something else meanwhile: stalls, cores that its host withheld, other people's processes."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

from loadtests.stalls.meter import Stall

#: The tests allow for as much in the times they measure; shorter stalls happen on any machine.
STALL_MS = 3.0
#: Above these, short stalls, the host of a virtual machine, or somebody else's process are felt.
STALLED_SHARE, WITHHELD_SHARE, FOREIGN_SHARE_OF_CORE = 0.01, 0.02, 0.10
#: The parent of the kernel's own threads, which also carry our packets.
_KTHREADD = 2


class Process(NamedTuple):
    """One process at one moment."""

    parent: int
    name: str
    #: CPU time of itself and of its children that ended.
    used_s: float


class Moment(NamedTuple):
    """What the kernel had counted until then."""

    at_ns: int
    #: CPU time that the host gave to others, of all cores together.
    withheld_s: float
    processes: Mapping[int, Process]


def present_moment() -> Moment:
    processes = {}
    for process in psutil.process_iter(["ppid", "name", "cpu_times"]):
        known = process.info
        if known["cpu_times"] is not None:  # it ended meanwhile
            processes[process.pid] = Process(known["ppid"], known["name"], sum(known["cpu_times"][:4]))
    return Moment(time.monotonic_ns(), getattr(psutil.cpu_times(), "steal", 0.0), processes)


def disturbance(before: Moment, after: Moment, stalls: Sequence[Stall], own: int) -> str | None:
    """What disturbed those who measured between two moments; None if nothing did.

    Args:
        stalls: of all cores; those that ended before are left out.
        own: the process that is ours, with all that descend from it.
    """
    seconds, cores = (after.at_ns - before.at_ns) / 1e9, len(os.sched_getaffinity(0))
    found = []
    lengths_ms = [stall.length_ns / 1e6 for stall in stalls if stall.end_ns > before.at_ns]
    stalled = sum(lengths_ms) / 1e3 / seconds / cores
    if lengths_ms and (max(lengths_ms) >= STALL_MS or stalled >= STALLED_SHARE):
        found.append(f"stalls of up to {max(lengths_ms):.0f} ms took {stalled:.0%} of the time")
    withheld = (after.withheld_s - before.withheld_s) / seconds / cores
    if withheld >= WITHHELD_SHARE:
        found.append(f"the host withheld {withheld:.0%} of the CPU")
    used_s = _used_by_others(before.processes, after.processes, own)
    busiest = max(used_s, key=lambda pid: used_s[pid], default=own)
    if sum(used_s.values()) / seconds >= FOREIGN_SHARE_OF_CORE:
        name = after.processes[busiest].name
        found.append(f"other processes used {sum(used_s.values()) / seconds:.0%} of a core, most of it {name}")
    return ", ".join(found) or None


def _used_by_others(before: Mapping[int, Process], after: Mapping[int, Process], own: int) -> dict[int, float]:
    """CPU time in seconds of each process that is neither ours nor the kernel's."""

    def is_foreign(pid: int) -> bool:
        while pid in after:
            if pid in (own, _KTHREADD):
                return False
            pid = after[pid].parent
        return True

    nothing = Process(0, "", 0.0)
    return {
        pid: max(0.0, process.used_s - before.get(pid, nothing).used_s)
        for pid, process in after.items()
        if is_foreign(pid)
    }
