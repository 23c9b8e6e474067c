"""Is one variant different from another? The unit is the trial, never the message.

Messages of one trial share a link's luck and wait for one another, so thousands of them say little more than one
trial does (Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). Each trial gives one median, one
p95, one p99; the difference is the Hodges–Lehmann estimate (median of all pairwise differences), its interval a
bootstrap over trials, and its p-value that of the Mann–Whitney test.
"""

import itertools

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from loadtests.analysis.read import Run

SHARES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
#: With fewer trials on a side the Mann–Whitney test can never come below 5 %.
LEAST_TRIALS = 4
_SIGNIFICANCE = 0.05
_RESAMPLES = 10_000


def compare_runs(a: Run, b: Run) -> pd.DataFrame:
    """B against A for each variant that both have; raises ValueError: they have none in common."""
    of_a, of_b = per_trial(a), per_trial(b)
    common = [name for name in of_a["variant"].unique() if name in set(of_b["variant"])]
    if not common:
        raise ValueError(f"{a.path} and {b.path} have no variant in common")
    return _table([(name, of_a[of_a["variant"] == name], of_b[of_b["variant"] == name]) for name in common])


def compare_within(run: Run, key: str) -> pd.DataFrame:
    """Each value of a varied key against its first, all else equal; raises ValueError: the run did not vary it."""
    if key not in run.conditions or key == "variant":
        raise ValueError(f"{run.path}: the run did not vary {key!r}; it varied: {', '.join(run.conditions)}")
    trials = per_trial(run)
    others = [other for other in run.conditions if other != key]
    groups = trials.groupby(others, observed=True) if others else [((), trials)]
    first, *rest = trials[key].cat.categories
    return _table(
        [
            (
                " ".join([*map(str, said), f"{value} against {first}"]),
                rows[rows[key] == first],
                rows[rows[key] == value],
            )
            for said, rows in groups
            for value in rest
        ]
    )


def hodges_lehmann(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The median of all differences b − a (Hodges & Lehmann, 1963)."""
    return float(np.median(np.subtract.outer(b, a)))


def per_trial(run: Run) -> pd.DataFrame:
    """One row per trial: the measures of `SHARES`, and which trial it was."""
    times = run.messages.groupby("trial")["response_time_ms"]
    measures = pd.DataFrame({name: times.quantile(share) for name, share in SHARES.items()})
    return measures.reset_index().merge(run.trials, on="trial")


def _table(pairs: list[tuple[str, pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"variant": name, "metric": metric} | difference(a[metric].to_numpy(float), b[metric].to_numpy(float))
            for (name, a, b), metric in itertools.product(pairs, SHARES)
        ]
    )


def difference(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> dict[str, object]:
    """The row of one comparison: `a` and `b` hold a figure of each trial of either side."""
    rng = np.random.default_rng(1)  # the same rows give the same interval
    enough = min(len(a), len(b)) >= LEAST_TRIALS
    a_again, b_again = rng.choice(a, (_RESAMPLES, 1, len(a))), rng.choice(b, (_RESAMPLES, len(b), 1))
    resampled = np.median((b_again - a_again).reshape(_RESAMPLES, -1), axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975]) if enough else (np.nan, np.nan)
    p_value = float(stats.mannwhitneyu(a, b).pvalue) if enough else np.nan
    verdict = "too few trials" if not enough else "different" if p_value < _SIGNIFICANCE else "no difference"
    return {
        "trials": f"{len(a)}/{len(b)}",
        "a": np.median(a),
        "b": np.median(b),
        "difference": hodges_lehmann(a, b),
        "low": low,
        "high": high,
        "p_value": p_value,
        "verdict": verdict,
    }
