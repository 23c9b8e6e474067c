"""Is `chatlab compare` right where the truth is known? `python tests/comparison_truth.py [--repetitions 1000]`.

The figures of trials are made up: a block's luck (15 % from repetition to repetition, shared by both variants), the
rest (what one trial differs from the next), and a true shift. Four questions: how often does a 95 % interval hold the
truth? How often is a difference seen where there is none, over all metrics after Holm's adjustment? How often is a
shift of 10 % in p99 found by ten trials? Is a variant that loses 3 % of its messages ever called better?
Exits 1 if an answer is not what it should be.
"""

import argparse
import sys

import numpy as np
import pandas as pd

from loadtests.analysis.compare import METRICS, judged
from loadtests.analysis.shift import paired, unpaired

_BLOCK, _MARGIN = 0.15, 0.05
#: What one trial differs from the next, how many trials, and in how many comparisons they have to find 10 %. Ten trials
#: that differ by 10 % cannot: the best test of one metric alone, which knows the deviation, finds 57 %.
_POWER_OF = ((0.10, 10, 0), (0.10, 36, 0.9), (0.07, 10, 0), (0.07, 20, 0.9), (0.05, 12, 0.9), (0.04, 10, 0.9))


def trials(
    rng: np.random.Generator, count: int, block: np.ndarray, rest: float, factor: float, lost: float
) -> pd.DataFrame:
    """One side: percentiles that follow the block's luck; with losses, those above their share are infinite."""
    table = pd.DataFrame({"repetition": range(count), "waited": 20_000})
    for name, share, level in (
        ("p50_ms", 0.5, 40),
        ("p95_ms", 0.95, 80),
        ("p99_ms", 0.99, 120),
        ("p99.9_ms", 0.999, 200),
    ):
        times = level * factor * np.exp(block + rng.normal(0, rest, count))
        table[name] = np.where(share >= 1 - lost, np.inf, times)
    table["lost_share"] = rng.binomial(20_000, lost, count) / 20_000
    table["refused_share"] = 0.0
    table["goodput_per_s"] = 100 * (1 - table["lost_share"]) * np.exp(rng.normal(0, 0.01, count))
    assert set(METRICS) <= set(table)
    return table


def coverage(rng: np.random.Generator, count: int, repetitions: int, *, pairs: bool) -> float:
    """How often the interval of the log ratio holds the true shift of 10 %."""
    truth, held = np.log(1.1), 0
    for _ in range(repetitions):
        block_a = rng.normal(0, _BLOCK, count)
        block_b = block_a if pairs else rng.normal(0, _BLOCK, count)
        a, b = block_a + rng.normal(0, 0.1, count), block_b + rng.normal(truth, 0.1, count)
        found = (paired if pairs else unpaired)(a, b)
        held += found.low <= truth <= found.high
    return held / repetitions


def verdicts(
    rng: np.random.Generator, repetitions: int, rest: float, factor: float, lost: float, count: int = 10
) -> list[dict[str, str]]:
    """Of each repetition: metric → verdict, of so many trials in blocks."""
    results = []
    for _ in range(repetitions):
        block = rng.normal(0, _BLOCK, count)
        a, b = trials(rng, count, block, rest, 1.0, 0.0), trials(rng, count, block, rest, factor, lost)
        results.append({one.metric: one.verdict for one in judged([("b", a, b)], _MARGIN, may_pair=True)})
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    repetitions = parser.parse_args().repetitions
    rng = np.random.default_rng(1)
    good = True
    for count in (4, 6, 10):
        for pairs in (False, True) if count >= 6 else (False,):
            share = coverage(rng, count, repetitions, pairs=pairs)
            kind = "pairs" if pairs else "trials a side"
            print(f"95 % interval, {count} {kind}: holds the truth in {share:.1%}")
            good &= 0.93 <= share <= 0.97
    crying = np.mean([bool({"better", "worse"} & set(each.values())) for each in verdicts(rng, repetitions, 0.1, 1, 0)])
    print(f"A/A, ten trials, all metrics: a difference in {crying:.1%}")
    good &= crying <= 0.05
    for rest, count, least in _POWER_OF:
        found = np.mean([each["p99_ms"] == "worse" for each in verdicts(rng, repetitions, rest, 1.1, 0, count)])
        print(f"p99 10 % higher, {count} trials, block {_BLOCK:.0%}, rest {rest:.0%}: found in {found:.1%}")
        good &= found >= least
    losing = verdicts(rng, repetitions, 0.05, 0.5, 0.03)
    better = sum("better" in each.values() for each in losing)
    print(f"half the response time, but 3 % lost: better in {better} of {repetitions}")
    good &= better == 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
