"""Whether the machine did something else meanwhile: stalls, cores that its host withheld, other people's processes."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

from loadtests.stalls.meter import Stall

#: The tests allow for as much in the times they measure; shorter stalls happen on any machine.
STALL_MS = 3.0
#: Above these, short stalls, the host of a virtual machine, or somebody else's processes are felt.
STALLED_SHARE, WITHHELD_SHARE, FOREIGN_SHARE_OF_CORE = 0.01, 0.02, 0.20
#: The parent of the kernel's own threads, which also carry our packets.
_KTHREADD = 2


class Process(NamedTuple):
    """One process at one moment: CPU time of its own, and of those of its children that ended."""

    parent: int
    name: str
    used_s: float
    children_s: float = 0.0


class Moment(NamedTuple):
    """What the kernel had counted until then, in seconds of CPU time of all cores together."""

    at_ns: int
    #: What the host gave to others.
    withheld_s: float
    #: What processes used, those that have ended too.
    busy_s: float
    processes: Mapping[int, Process]


def present_moment() -> Moment:
    processes = {}
    for process in psutil.process_iter(["ppid", "name", "cpu_times"]):
        known = process.info
        if (used := known["cpu_times"]) is not None:  # it ended meanwhile
            own_s, children_s = used.user + used.system, used.children_user + used.children_system
            processes[process.pid] = Process(known["ppid"], known["name"], own_s, children_s)
    counted = psutil.cpu_times()
    busy_s = counted.user + counted.nice + counted.system
    return Moment(time.monotonic_ns(), getattr(counted, "steal", 0.0), busy_s, processes)


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
    foreign, name = _foreign(before, after, own)
    if foreign / seconds >= FOREIGN_SHARE_OF_CORE:
        found.append(f"other processes used {foreign / seconds:.0%} of a core{name}")
    return ", ".join(found) or None


def _foreign(before: Moment, after: Moment, own: int) -> tuple[float, str]:
    """Seconds that others used, those that have ended too; and the name of who used most.

    It is what all used, less what we and the kernel's threads did.
    """
    nothing = Process(0, "", 0.0)
    used_s: dict[int, float] = {}
    foreign_s = after.busy_s - before.busy_s
    for pid, process in after.processes.items():
        earlier = before.processes.get(pid, nothing)
        used_s[pid] = process.used_s - earlier.used_s
        root = pid
        while root in after.processes and root not in (own, _KTHREADD):
            root = after.processes[root].parent
        if root in after.processes:
            foreign_s -= used_s.pop(pid) + process.children_s - earlier.children_s
    busiest = max(used_s, key=lambda pid: used_s[pid], default=own)
    return foreign_s, f", most of it {after.processes[busiest].name}" if used_s.get(busiest) else ""
