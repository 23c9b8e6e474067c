"""What a link does to one packet, as small machines fed with the present moment.

Each effect is told when a packet reaches it and how long it is, and answers when the packet leaves, or None if it is
lost there. Times are integer nanoseconds of any one clock; packets must be fed in order of time. Chance comes from the
`random.Random` passed in, so the same seed makes the same decisions, packet for packet. The arithmetic is that of the
kernel's `sch_netem.c`.
"""

from collections import deque
from random import Random
from typing import Protocol

from loadtests.link.profile import ETHERNET_HEADER_BYTES, GilbertElliott


class Effect(Protocol):
    """One thing that can happen to packets."""

    #: Packets lost here so far.
    dropped: int

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        """When the packet that arrives at `at_ns` leaves; None if it is lost."""
        ...


class RandomLoss:
    """Each packet is lost with the same probability, whatever happened to the others."""

    def __init__(self, ratio: float, random: Random) -> None:
        self.dropped = 0
        self._ratio = ratio
        self._random = random.random

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        if self._random() < self._ratio:
            self.dropped += 1
            return None
        return at_ns


class BurstyLoss:
    """Gilbert–Elliott: the state steps first, but the loss is that of the state before the step, as in netem."""

    def __init__(self, model: GilbertElliott, random: Random) -> None:
        self.dropped = 0
        self._model = model
        self._random = random.random
        self._bad = False

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        model, was_bad = self._model, self._bad
        if self._random() < (model.r if was_bad else model.p):
            self._bad = not was_bad
        if self._random() < (model.bad_loss if was_bad else model.good_loss):
            self.dropped += 1
            return None
        return at_ns


class Delay:
    """Every packet takes `delay_ns ± jitter_ns` (uniform), but never overtakes the one before."""

    def __init__(self, delay_ns: int, jitter_ns: int, random: Random) -> None:
        self.dropped = 0
        self._least_ns = delay_ns - jitter_ns
        self._spread_ns = 2 * jitter_ns
        self._random = random.random
        self._last_ns = 0

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        leaves_ns = at_ns + self._least_ns
        if self._spread_ns:
            leaves_ns += int(self._spread_ns * self._random())
        self._last_ns = max(self._last_ns, leaves_ns)
        return self._last_ns


class Rate:
    """One packet at a time at so many bits per second; a packet that finds the queue full is dropped."""

    def __init__(self, rate_bps: float, queue_packets: int) -> None:
        self.dropped = 0
        self._ns_per_byte = 8e9 / rate_bps
        self._queue_packets = queue_packets
        #: When each packet still here will have been sent.
        self._departures_ns: deque[int] = deque()

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        departures_ns = self._departures_ns
        while departures_ns and departures_ns[0] <= at_ns:
            departures_ns.popleft()
        if len(departures_ns) >= self._queue_packets:
            self.dropped += 1
            return None
        starts_ns = departures_ns[-1] if departures_ns else at_ns
        departures_ns.append(starts_ns + int((ip_bytes + ETHERNET_HEADER_BYTES) * self._ns_per_byte))
        return departures_ns[-1]
