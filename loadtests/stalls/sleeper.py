"""One core's share of the stall meter: a process that only sleeps, and notes each time it was woken late.

It is run as a script, with the standard library's smallest part, so that it starts in milliseconds. Its arguments are
the core, the shortest stall of interest in ns, the number of an open file for the stalls (each two native `int64`:
begin and length in ns, CLOCK_MONOTONIC), and the process whose death is its own. To its standard output it says
`realtime` or `ordinary` once, when it measures.
"""

import ctypes
import os
import signal
import struct
import sys
from time import monotonic_ns, process_time_ns, sleep

#: The link emulator's real-time priority is 1, so it cannot delay us; whoever is above us takes the core away.
_PRIORITY = 2
#: The time between two wakes is an uncertainty of a stall's beginning: as short as our share of the core allows.
_SHORTEST_PERIOD_NS, _LONGEST_PERIOD_NS = 400_000, 4_000_000
_SHARE_OF_CORE = 0.009
#: Wakes after which the cost of one is looked at again.
_WAKES = 256
#: A wake this late is a stall, however long the period.
_LATE_NS = 500_000
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
#: As `loadtests.stalls.meter` reads it.
RECORD = struct.Struct("=qq")


def main() -> None:
    core, threshold_ns, file, parent = map(int, sys.argv[1:])
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        return
    os.sched_setaffinity(0, {core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        scheduling = b"realtime"
    except PermissionError:
        prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
        scheduling = b"ordinary"
    os.write(sys.stdout.fileno(), scheduling)
    os.close(sys.stdout.fileno())
    watch(threshold_ns, file)


def watch(threshold_ns: int, file: int) -> None:
    """Write down every stall, for ever.

    Somewhere between the last wake and the moment at which the next was due the stall began: the middle is half a
    period off at most. It ended when we were woken.
    """
    period_ns = 4 * _SHORTEST_PERIOD_NS
    woke_ns = monotonic_ns()
    while True:
        used_ns = process_time_ns()
        late_ns = max(_LATE_NS, threshold_ns - period_ns // 2)
        for _ in range(_WAKES):
            due_ns = woke_ns + period_ns
            sleep(max(0, due_ns - monotonic_ns()) / 1e9)
            now_ns = monotonic_ns()
            if now_ns - due_ns > late_ns:
                begin_ns = (woke_ns + due_ns) // 2
                os.write(file, RECORD.pack(begin_ns, now_ns - begin_ns))
            woke_ns = now_ns
        cost_ns = (process_time_ns() - used_ns) / _WAKES
        period_ns = min(max(_SHORTEST_PERIOD_NS, round(cost_ns / _SHARE_OF_CORE)), _LONGEST_PERIOD_NS)


if __name__ == "__main__":
    main()
