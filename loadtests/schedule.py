"""When messages are due: absolute times, fixed before anything is sent, so that no stall can thin the load.

This is what makes the workload open; a schedule that waits for replies would hide every stall of the server.
"""

import random
from collections.abc import Iterator


def intended_times(arrival: str, rate_per_s: float, start_ns: int, rng: random.Random) -> Iterator[int]:
    """The endless times, in ns, at which one user's messages are due.

    Args:
        arrival: `poisson` (exponential gaps) or `constant` (equal gaps after a random phase, so that users are
            not in step with each other).
        rate_per_s: mean number of messages per second.
        start_ns: no message is due earlier.
        rng: the source of all randomness.
    """
    gap_ns = 1e9 / rate_per_s
    due_ns = float(start_ns)
    if arrival == "constant":
        due_ns += rng.random() * gap_ns
        while True:
            yield int(due_ns)
            due_ns += gap_ns
    while True:
        due_ns += rng.expovariate(1.0) * gap_ns
        yield int(due_ns)
