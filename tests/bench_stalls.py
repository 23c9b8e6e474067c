"""What the stall meter finds of stalls that are planted, and what it costs: `python tests/bench_stalls.py [SECONDS]`.

Each core is taken away by a process of higher real-time priority, for 2 to 60 ms at a time, now and then; what that
process noted is held against what the meter found. As root, on a machine that does nothing else.
"""

import os
import random
import sys
import time
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from bench_table import Figure, print_table

from loadtests.stalls.meter import Stall, StallMeter

#: Above the meter's.
_PRIORITY = 50
_SHORTEST_S, _LONGEST_S = 0.002, 0.060
_PAUSE_S = (0.05, 0.15)


def plant(core: int, seconds: float, found: Connection) -> None:
    """Take `core` away again and again, and send the stalls that this makes."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    chance = random.Random(core)
    planted = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(chance.uniform(*_PAUSE_S))
        begin_ns = time.monotonic_ns()
        until_ns = begin_ns + round(chance.uniform(_SHORTEST_S, _LONGEST_S) * 1e9)
        while (now_ns := time.monotonic_ns()) < until_ns:
            pass
        planted.append(Stall(begin_ns, now_ns - begin_ns, core))
    found.send(planted)


def cpu_s(pid: int) -> float:
    """CPU time of a process to the nanosecond: /proc/PID/stat counts ticks, which miss one that sleeps between them."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def compare(planted: list[Stall], measured: list[Stall]) -> list[Figure]:
    """How many of the planted stalls were found (overlapped by a measured one), and how far off their lengths are."""
    errors = []
    for stall in planted:
        found = [
            one
            for one in measured
            if one.core == stall.core and one.begin_ns < stall.end_ns and one.end_ns > stall.begin_ns
        ]
        if found:
            errors.append(abs(sum(one.length_ns for one in found) / stall.length_ns - 1))
    total = sum(stall.length_ns for stall in measured) / sum(stall.length_ns for stall in planted)
    return [
        Figure(f"found of {len(planted)} planted, %", [100 * len(errors) / len(planted)], 95, at_most=False),
        Figure("error of a length (median), %", [100 * float(np.median(errors))], 10),
        Figure("lengths within 10 %, %", [100 * float(np.mean(np.array(errors) <= 0.1))], 95, at_most=False),
        Figure("length of all together, % of planted", [100 * total], 110),
    ]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    cores = sorted(os.sched_getaffinity(0))
    with StallMeter(cores) as meter:
        if not meter.is_realtime:
            sys.exit("real-time priority is not allowed here: run this as root")
        time.sleep(2)
        before = [cpu_s(pid) for pid in meter.pids]
        began_s = time.monotonic()
        time.sleep(seconds)
        lasted_s = time.monotonic() - began_s
        costs = [(cpu_s(pid) - used) / lasted_s * 100 for pid, used in zip(meter.pids, before, strict=True)]
        quiet = len(meter.stalls())
        pipes = [Pipe(duplex=False) for _ in cores]
        hogs = [Process(target=plant, args=(core, seconds, pipe[1])) for core, pipe in zip(cores, pipes, strict=True)]
        for hog in hogs:
            hog.start()
        planted = [stall for pipe in pipes for stall in pipe[0].recv()]
        for hog in hogs:
            hog.join()
        figures = compare(planted, meter.stalls()[quiet:])
    print(f"stalls while nothing was planted: {quiet}")
    sys.exit(not print_table([Figure("cost, % of a core", costs, 1), *figures]))


if __name__ == "__main__":
    main()
