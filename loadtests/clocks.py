"""The machine's two clocks, held against each other."""

import time

_READINGS = 5


def wall_ahead_ns() -> int:
    """How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC now.

    Of several readings the one between whose ends the least time passed: nobody else ran in it.
    """
    readings = []
    for _ in range(_READINGS):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2))
    return min(readings)[1]
