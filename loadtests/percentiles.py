"""Percentiles in which a lost message waits forever, and how many messages it takes to know one."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

#: A percentile with fewer messages beyond it than this rests on a handful of them: it is not shown.
LEAST_BEYOND = 10
#: Those that are told.
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def percentiles(times_ms: npt.ArrayLike, shares: Iterable[float]) -> list[float]:
    """Percentiles of response times, linear between ranks (definition 7 of Hyndman & Fan, 1996).

    Args:
        times_ms: one value per message; NaN for a lost one, which counts as infinite.
        shares: such as 0.99.

    Returns:
        a value for each share; infinite where it falls among the lost ones, NaN without any message.
    """
    values = np.asarray(times_ms, dtype=float)
    ordered = np.sort(np.where(np.isnan(values), np.inf, values))
    return [_at(ordered, share) for share in shares]


def is_known(count: int, share: float) -> bool:
    """Whether `count` messages are enough for this percentile: ten of them lie beyond it."""
    return count * (1 - share) >= LEAST_BEYOND - 1e-9


def least_count(share: float) -> int:
    """How many messages it takes until :func:`is_known`."""
    return int(np.ceil(LEAST_BEYOND / (1 - share) - 1e-9))


def _at(ordered: npt.NDArray[np.float64], share: float) -> float:
    if not ordered.size:
        return float("nan")
    rank = share * (ordered.size - 1)
    below = int(rank)
    part = rank - below
    low = float(ordered[below])
    if part == 0 or low == np.inf:
        return low
    return low + part * (float(ordered[below + 1]) - low)
