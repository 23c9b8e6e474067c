"""What a link does to one packet, as small machines fed with the present moment.

Each effect is told when a packet reaches it and how long it is, and answers when the packet leaves, or None if it is
lost there. Times are integer nanoseconds of any one clock; packets must be fed in order of time. Chance comes from the
`random.Random` passed in, so the same seed makes the same decisions, packet for packet. The arithmetic is that of the
kernel's `sch_netem.c`.

An effect outlives a change of the link: `set` gives it new numbers, and what it knows of the packets before stays.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from random import Random
from typing import Protocol

from loadtests.link.model.distributions import table
from loadtests.link.model.profile import (
    ETHERNET_HEADER_BYTES,
    OPPORTUNITY_BYTES,
    Direction,
    GilbertElliott,
    TimedBursts,
)


class Effect(Protocol):
    """One thing that can happen to packets."""

    #: Packets lost here so far.
    dropped: int

    def __init__(self, random: Random) -> None: ...

    @staticmethod
    def wanted(direction: Direction) -> bool:
        """Whether `direction` asks for this effect at all."""
        ...

    def set(self, direction: Direction, at_ns: int) -> None:
        """Do what `direction` says, from `at_ns` on."""
        ...

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        """When the packet that arrives at `at_ns` leaves; None if it is lost."""
        ...


class Loss(ABC):
    """What all losses share: a packet that is not lost leaves at once."""

    dropped = 0

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        if self._loses(at_ns):
            self.dropped += 1
            return None
        return at_ns

    @abstractmethod
    def _loses(self, at_ns: int) -> bool: ...


class RandomLoss(Loss):
    """Each packet is lost with the same probability, whatever happened to the others."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._ratio = 0.0

    @staticmethod
    def wanted(direction: Direction) -> bool:
        return isinstance(direction.loss, float) and direction.loss > 0

    def set(self, direction: Direction, at_ns: int) -> None:
        assert isinstance(direction.loss, float), "wanted"
        self._ratio = direction.loss

    def _loses(self, at_ns: int) -> bool:
        return self._random() < self._ratio


class BurstyLoss(Loss):
    """Gilbert–Elliott: the state steps first, but the loss is that of the state before the step, as in netem."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._model = GilbertElliott(0, 1)
        self._bad = False

    @staticmethod
    def wanted(direction: Direction) -> bool:
        return isinstance(direction.loss, GilbertElliott)

    def set(self, direction: Direction, at_ns: int) -> None:
        assert isinstance(direction.loss, GilbertElliott), "wanted"
        self._model = direction.loss

    def _loses(self, at_ns: int) -> bool:
        model, was_bad = self._model, self._bad
        if self._random() < (model.r if was_bad else model.p):
            self._bad = not was_bad
        return self._random() < (model.bad_loss if was_bad else model.good_loss)


class TimedLoss(Loss):
    """Gilbert–Elliott in time: good and bad states of random length, whether packets come or not."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._model = TimedBursts(1, 1)
        self._bad = True  # the first step makes it good
        self._until_ns: float = -math.inf

    @staticmethod
    def wanted(direction: Direction) -> bool:
        return isinstance(direction.loss, TimedBursts)

    def set(self, direction: Direction, at_ns: int) -> None:
        assert isinstance(direction.loss, TimedBursts), "wanted"
        self._model = direction.loss
        self._until_ns = max(self._until_ns, at_ns)

    def _loses(self, at_ns: int) -> bool:
        model = self._model
        while self._until_ns <= at_ns:
            self._bad = not self._bad
            self._until_ns += self._random.expovariate(1e-9 / (model.bad_s if self._bad else model.good_s))
        return self._random.random() < (model.bad_loss if self._bad else model.good_loss)


class Delay:
    """Every packet takes its delay and jitter, in the order of arrival if asked; some skip it and overtake."""

    def __init__(self, random: Random) -> None:
        self.dropped = 0
        self._random = random.random
        self._last_ns = 0

    @staticmethod
    def wanted(direction: Direction) -> bool:
        return direction.delay_s > 0

    def set(self, direction: Direction, at_ns: int) -> None:
        self._delay_ns = round(direction.delay_s * 1e9)
        self._jitter_ns = round(direction.jitter_s * 1e9)
        self._table = () if direction.distribution == "uniform" else table(direction.distribution)
        self._keep_order = direction.keep_order
        self._reorder = direction.reorder

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        if self._reorder and self._random() < self._reorder:
            return at_ns
        leaves_ns = at_ns + self._delay_ns
        if self._jitter_ns:
            chance = self._random()
            t = self._table[int(chance * len(self._table))] if self._table else 2 * chance - 1
            leaves_ns = max(at_ns, leaves_ns + int(self._jitter_ns * t))
        if not self._keep_order:
            return leaves_ns
        self._last_ns = max(self._last_ns, leaves_ns)
        return self._last_ns


class Queue(ABC):
    """What all rates share: packets are sent one after the other; one that finds the queue full is dropped."""

    def __init__(self, random: Random) -> None:
        self.dropped = 0
        #: When each packet still here will have been sent.
        self._departures_ns: deque[int] = deque()
        self._queue_packets = 0

    def leaves_ns(self, at_ns: int, ip_bytes: int) -> int | None:
        departures_ns = self._departures_ns
        while departures_ns and departures_ns[0] <= at_ns:
            departures_ns.popleft()
        if len(departures_ns) >= self._queue_packets:
            self.dropped += 1
            return None
        departs_ns = self._departs_ns(at_ns, departures_ns[-1] if departures_ns else at_ns, ip_bytes)
        departures_ns.append(departs_ns)
        return departs_ns

    @abstractmethod
    def _departs_ns(self, at_ns: int, free_ns: int, ip_bytes: int) -> int:
        """When the packet has been sent, if the link is free from `free_ns` on."""


class Rate(Queue):
    """So many bits per second."""

    @staticmethod
    def wanted(direction: Direction) -> bool:
        return direction.rate_bps is not None

    def set(self, direction: Direction, at_ns: int) -> None:
        assert direction.rate_bps is not None, "wanted"
        self._ns_per_byte = 8e9 / direction.rate_bps
        self._queue_packets = direction.queue_packets

    def _departs_ns(self, at_ns: int, free_ns: int, ip_bytes: int) -> int:
        return free_ns + int((ip_bytes + ETHERNET_HEADER_BYTES) * self._ns_per_byte)


class Opportunities(Queue):
    """The rate of a trace: packets leave when its lines say (see `trace.py`)."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._path = ""
        #: The opportunity in use, counted from the beginning of the trace, and what is left of it.
        self._number, self._left_bytes = 0, 0

    @staticmethod
    def wanted(direction: Direction) -> bool:
        return direction.trace is not None

    def set(self, direction: Direction, at_ns: int) -> None:
        assert direction.trace is not None, "wanted"
        self._queue_packets = direction.queue_packets
        if self._path != direction.trace.path:
            self._path, self._begin_ns = direction.trace.path, at_ns
            self._times_ms = direction.trace.times_ms
            self._number, self._left_bytes = 0, OPPORTUNITY_BYTES

    def _departs_ns(self, at_ns: int, free_ns: int, ip_bytes: int) -> int:
        if self._time_ns(self._number) < at_ns:
            self._number, self._left_bytes = self._first_after(at_ns), OPPORTUNITY_BYTES
        needed_bytes = ip_bytes + OPPORTUNITY_BYTES - 1500
        while needed_bytes > self._left_bytes:
            needed_bytes -= self._left_bytes
            self._number, self._left_bytes = self._number + 1, OPPORTUNITY_BYTES
        self._left_bytes -= needed_bytes
        return self._time_ns(self._number)

    def _time_ns(self, number: int) -> int:
        turn, index = divmod(number, len(self._times_ms))
        return self._begin_ns + (turn * self._times_ms[-1] + self._times_ms[index]) * 1_000_000

    def _first_after(self, at_ns: int) -> int:
        turn, within_ns = divmod(at_ns - self._begin_ns, self._times_ms[-1] * 1_000_000)
        return turn * len(self._times_ms) + bisect_left(self._times_ms, within_ns / 1e6)
