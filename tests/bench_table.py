"""The table of a benchmark: figures beside their limits."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """What was measured, once or several times: the median counts."""

    name: str
    measured: Sequence[float]
    limit: float
    #: Whether the limit is the most or the least that is allowed.
    at_most: bool = True


def print_table(figures: Sequence[Figure]) -> bool:
    """Print a line for each figure; whether all are within their limits."""
    good = True
    for name, measured, limit, at_most in figures:
        median = statistics.median(measured)
        within = median <= limit if at_most else median >= limit
        good &= within
        spread = f"{min(measured):.4g} to {max(measured):.4g}; " if len(measured) > 1 else ""
        word = "at most" if at_most else "at least"
        print(f"{name:40}{median:10.4g}  ({spread}{word} {limit:g}){'' if within else '  MISSED'}")
    return good
