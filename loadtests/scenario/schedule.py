"""When messages are due: absolute times, fixed before anything is sent, so that no stall can thin the load.

This is what makes the workload open; a schedule that waits for replies would hide every stall of the server.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """A rate that changes in a straight line from one value to another, and stays there."""

    from_per_s: float
    to_per_s: float
    duration_s: float

    def left_after(self, elapsed_s: float) -> "Ramp":
        """The rest of it, for who comes so much later than it began."""
        left_s = max(0.0, self.duration_s - elapsed_s)
        rate_per_s = self.to_per_s + (self.from_per_s - self.to_per_s) * left_s / self.duration_s
        return Ramp(rate_per_s, self.to_per_s, left_s)

    def time_of(self, count: float) -> float:
        """When the expected number of events since the start reaches `count`, in seconds.

        The inverse of Λ(t) = r₀t + (r₁ − r₀)t²/2T: events of a unit-rate process mapped by it have the ramp's rate
        (Çinlar's time transformation of a Poisson process).
        """
        count_in_ramp = (self.from_per_s + self.to_per_s) / 2 * self.duration_s
        if count >= count_in_ramp:
            return self.duration_s + (count - count_in_ramp) / self.to_per_s
        slope = (self.to_per_s - self.from_per_s) / self.duration_s
        if slope == 0:
            return count / self.from_per_s
        return (math.sqrt(self.from_per_s**2 + 2 * slope * count) - self.from_per_s) / slope


def intended_times(arrival: str, ramp: Ramp, burst: int, start_ns: int, rng: random.Random) -> Iterator[int]:
    """The endless times, in ns, at which one user's messages are due.

    Args:
        arrival: `poisson` (exponential gaps) or `constant` (equal gaps after a random phase, so that users are
            not in step with each other).
        ramp: messages per second, over time.
        burst: this many messages are due at the same time; the bursts are as much rarer.
        start_ns: no message is due earlier.
        rng: the source of all randomness.
    """
    count = rng.random() * burst if arrival == "constant" else rng.expovariate(1.0) * burst
    while True:
        due_ns = start_ns + int(ramp.time_of(count) * 1e9)
        for _ in range(burst):
            yield due_ns
        count += burst if arrival == "constant" else rng.expovariate(1.0) * burst
