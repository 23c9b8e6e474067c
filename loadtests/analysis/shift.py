"""How far one sample lies from another: exact rank tests, and the interval that they leave.

Estimate: Hodges & Lehmann (1963). Interval: all shifts that the test does not reject, which is the k-th smallest to
the k-th largest of the pairwise differences (Hollander, Wolfe & Chicken, "Nonparametric statistical methods", 3rd
edition, sections 3.3 and 4.3). The exact test only knows a few levels when trials are few; between the two next to 95 %
the ends are interpolated, so that the interval holds the truth 95 % of the time, not 97 or 94.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

#: How often an interval misses the truth, and a test sees a difference that is not there.
LEVEL = 0.05


@dataclass(frozen=True)
class Shift:
    """How far B lies above A; infinite values (a percentile among lost messages) count as equal to each other."""

    estimate: float
    low: float
    high: float
    p_value: float


def paired(a: Values, b: Values) -> Shift:
    """Of pairs (`a[i]`, `b[i]`): the exact Wilcoxon signed-rank test; needs six pairs to be able to decide."""
    steps = _difference(a, b)
    with np.errstate(invalid="ignore"):
        means = (steps[:, None] + steps[None, :]) / 2
    walsh = np.sort(np.nan_to_num(means[np.triu_indices(len(steps))], nan=0.0, posinf=np.inf, neginf=-np.inf))
    tails = np.cumsum(_sums(np.arange(1, len(steps) + 1)).sum(axis=0)) / 2.0 ** len(steps)
    moved = steps[steps != 0]
    ranks = _doubled_ranks(np.abs(moved))
    p_value = _two_sided(_sums(ranks).sum(axis=0), int(ranks[moved > 0].sum()))
    return Shift(_median(walsh), *_interval(walsh, tails), p_value)


def unpaired(a: Values, b: Values) -> Shift:
    """Of independent samples: the exact Mann–Whitney test; needs four of each to be able to decide."""
    differences = np.sort(_difference(a[:, None], b[None, :]).ravel())
    counts = _sums(np.arange(1, len(a) + len(b) + 1))[len(b)]
    least = len(b) * (len(b) + 1) // 2
    tails = np.cumsum(counts[least:]) / counts.sum()
    ranks = _doubled_ranks(np.concatenate([a, b]))
    p_value = _two_sided(_sums(ranks)[len(b)], int(ranks[len(a) :].sum()))
    return Shift(_median(differences), *_interval(differences, tails), p_value)


def holm(p_values: Values) -> Values:
    """P-values adjusted for the number of tests (Holm, 1979); NaN stays NaN and does not count."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    highest = 0.0
    for place, index in enumerate(known[np.argsort(p_values[known], kind="stable")]):
        highest = max(highest, min(1.0, float(p_values[index]) * (len(known) - place)))
        adjusted[index] = highest
    return adjusted


def _difference(a: Values, b: Values) -> Values:
    with np.errstate(invalid="ignore"):
        steps: Values = np.where(a == b, 0.0, b - a)
    return steps


def _median(ordered: Values) -> float:
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low if low == high else (low + high) / 2)


def _interval(ordered: Values, tails: Values) -> tuple[float, float]:
    """The ends; `tails[j]`: chance that the statistic is at most j where there is no shift."""
    k = int(np.searchsorted(tails, LEVEL / 2, side="right"))  # tails[k − 1] ≤ half the level < tails[k]
    if k == 0:
        return float("nan"), float("nan")
    part = (LEVEL / 2 - tails[k - 1]) / (tails[k] - tails[k - 1])
    return _between(ordered[k - 1], ordered[k], part), _between(ordered[-k], ordered[-k - 1], part)


def _between(outer: float, inner: float, part: float) -> float:
    return float(outer + part * (inner - outer)) if np.isfinite([outer, inner]).all() else float(outer)


def _doubled_ranks(values: Values) -> npt.NDArray[np.int64]:
    """Ranks, ties sharing theirs, times two: whole numbers."""
    ordered = np.sort(values)
    ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1
    return np.asarray(ranks, dtype=np.int64)


def _sums(ranks: npt.NDArray[np.int64]) -> Values:
    """[m, s] → in how many ways m of these ranks have the sum s."""
    counts = np.zeros((len(ranks) + 1, int(ranks.sum()) + 1))
    counts[0, 0] = 1
    for number, rank in enumerate(map(int, ranks), 1):
        counts[1 : number + 1, rank:] += counts[:number, : counts.shape[1] - rank].copy()
    return counts


def _two_sided(counts: Values, found: int) -> float:
    """P-value of the sum `found` among all that are equally likely."""
    total = counts.sum()
    return float(min(1.0, 2 * min(counts[: found + 1].sum(), counts[found:].sum()) / total))
