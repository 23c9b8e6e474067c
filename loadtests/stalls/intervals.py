"""Times in which something was amiss, and what meets them. Pure."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Around the moments of a probe: what was held up is worked off after a stall, whose beginning is known to about a
#: millisecond.
MARGIN_NS = 2_000_000


class Interval(NamedTuple):
    """From when to when (CLOCK_MONOTONIC)."""

    begin_ns: int
    end_ns: int


class Intervals:
    """A set of times, asked for all that meets it."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        merged: list[Interval] = []
        for one in sorted(intervals):
            if merged and one.begin_ns <= merged[-1].end_ns:
                merged[-1] = Interval(merged[-1].begin_ns, max(merged[-1].end_ns, one.end_ns))
            else:
                merged.append(one)
        self._begin_ns = np.array([one.begin_ns for one in merged], np.int64)
        self._end_ns = np.array([one.end_ns for one in merged], np.int64)
        self._before_ns = np.concatenate([[0], np.cumsum(self._end_ns - self._begin_ns)]).astype(np.int64)

    @classmethod
    def longer_than(cls, intervals: Iterable[Interval], least_ns: float) -> Self:
        """Those that are long enough, each by itself."""
        return cls(one for one in intervals if one.end_ns - one.begin_ns > least_ns)

    def meet(self, from_ns: Ints, to_ns: Ints) -> Flags:
        """Whether anything lies between each pair of times, ends included."""
        first = np.searchsorted(self._end_ns, from_ns)
        begins_ns = np.append(self._begin_ns, np.iinfo(np.int64).max)
        meets: Flags = begins_ns[first] <= to_ns
        return meets

    def overlap_ns(self, from_ns: Ints, to_ns: Ints) -> Ints:
        """How much lies between each pair of times."""
        return self._until_ns(to_ns) - self._until_ns(from_ns)

    def _until_ns(self, at_ns: Ints) -> Ints:
        index = np.searchsorted(self._begin_ns, at_ns, side="right")
        previous = np.maximum(index - 1, 0)
        if not len(self._begin_ns):
            return np.zeros(len(at_ns), np.int64)
        inside = np.clip(at_ns - self._begin_ns[previous], 0, self._end_ns[previous] - self._begin_ns[previous])
        until: Ints = np.where(index > 0, self._before_ns[previous] + inside, 0)
        return until
