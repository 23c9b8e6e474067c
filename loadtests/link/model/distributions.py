"""The distributions of jitter, by the formulae from which iproute2 generates the tables that netem draws from.

A draw `t` means a delay of `T + J·t`, for `delay T J distribution D`. Like a table of netem a distribution has 4096
equally likely values in steps of 1/8192, none of them further away than 4.
"""

from functools import cache
from statistics import NormalDist
from typing import Literal

Distribution = Literal["uniform", "normal", "pareto", "paretonormal"]

_VALUES = 4096
_SCALE = 8192  # NETEM_DIST_SCALE
_LEAST, _MOST = -32768, 32767  # the tables hold 16-bit numbers


@cache
def table(distribution: Distribution) -> tuple[float, ...]:
    """The equally likely values of `t`, rising."""
    shares = ((index + 0.5) / _VALUES for index in range(_VALUES))
    return tuple(min(max(round(_quantile(distribution, share) * _SCALE), _LEAST), _MOST) / _SCALE for share in shares)


def _quantile(distribution: Distribution, share: float) -> float:
    """The value that `share` of all draws stay below."""
    if distribution == "uniform":
        return 2 * share - 1
    if distribution == "normal":
        return NormalDist().inv_cdf(share)
    # iproute2, netem/pareto.c: a = 3, scaled to mean 0 and deviation 1, which the table's end then takes some of.
    pareto: float = min(((1 - share) ** (-1 / 3) - 1.5) * 4 / 3, _MOST / _SCALE)
    return pareto if distribution == "pareto" else NormalDist().inv_cdf(share) / 4 + pareto * 3 / 4
