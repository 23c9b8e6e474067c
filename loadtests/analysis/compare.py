"""Is one variant different from another, and does it matter? The unit is the trial, never the message.

Messages of one trial share a link's luck and wait for one another, so thousands of them say little more than one
trial does (Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). Each trial gives one figure of
each metric. Repetitions are blocks that share seed and schedule: within a run they are pairs, from six on; otherwise
the samples are independent. A verdict holds the interval of the ratio against a margin that the user gives.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from chat.words import count
from loadtests.analysis.goodput import goodput_per_s
from loadtests.analysis.read import Run
from loadtests.analysis.shift import LEVEL, Shift, holm, paired, unpaired
from loadtests.errors import HarnessError
from loadtests.percentiles import SHARES as percentile_shares
from loadtests.percentiles import is_known, least_count, percentiles

Verdict = Literal["better", "worse", "equivalent", "undecided", "too few"]

SHARES = {f"{name}_ms": share for name, share in percentile_shares.items()}
#: Of messages that were sent; compared by difference alone, since most are 0.
LOSSES = ("lost_share", "refused_share")
METRICS = (*SHARES, "goodput_per_s", *LOSSES)
#: With fewer the exact tests can never come below 5 %.
LEAST_TRIALS, LEAST_PAIRS = 4, 6
#: Shares this near to each other are as good as equal.
_SHARE_MARGIN = 0.001
#: Where others had this much more of the machine in one run than in the other, times that are nearer to each other than
#: this tell nothing: a core that never rests wakes up sooner, one that somebody else has just used is cold.
_OTHERS_SHARE, _OTHERS_MS = 0.1, 0.2
#: How often the number of trials that is told as deciding would decide.
_POWER = 0.80
_MOST_TRIALS = 1000


@dataclass(frozen=True)
class Comparison:
    """B against A in one metric."""

    name: str
    metric: str
    #: Trials of either side, and whether they are pairs.
    trials: tuple[int, int]
    is_paired: bool
    #: Medians over trials.
    a: float
    b: float
    #: B − A, in the unit of the metric, with its 95 % interval.
    difference: Shift
    #: B / A with its 95 % interval; NaN for shares.
    ratio: Shift
    #: Adjusted for all comparisons made at once (Holm).
    p_value: float
    verdict: Verdict
    #: The figure of each trial of A, and of B.
    values: tuple[tuple[float, ...], tuple[float, ...]]
    #: Why it is too few or undecided, or how many trials would probably decide; empty otherwise.
    note: str = ""
    #: Whether the difference may be that of the machines, which were not as busy in both runs.
    is_unsure: bool = False

    @property
    def p_alone(self) -> float:
        """Of this comparison as if no other had been made; NaN where there was nothing to test."""
        return math.nan if math.isnan(self.p_value) else _p_value(self.difference, self.ratio)


def compare_runs(a: Run, b: Run, margin: float = 0.05) -> list[Comparison]:
    """B against A for each variant that both have; raises HarnessError: they have none in common, or are one."""
    if a.path.resolve() == b.path.resolve():
        raise HarnessError(f"{a.path}: the run is given twice")
    of_a, of_b = per_trial(a), per_trial(b)
    measured = set(of_a["variant"]) & set(of_b["variant"])
    common = [name for name in a.trials["variant"].cat.categories if name in measured]
    if not common:
        raise HarnessError(f"{a.path} and {b.path} have no variant in common")
    sides = [(str(name), of_a[of_a["variant"] == name], of_b[of_b["variant"] == name]) for name in common]
    return judged(sides, margin, may_pair=False, unsure_ms=_unsure_ms(a, b))


def _unsure_ms(*runs: Run) -> float:
    """Below which differences of times may be the machine's rather than of what is compared."""
    shares = [_share_of_others(run) for run in runs]
    return _OTHERS_MS if max(shares) - min(shares) > _OTHERS_SHARE else 0.0


def _share_of_others(run: Run) -> float:
    """How much of the machine's CPU they had, on average over the trials."""
    machines = [trial.machine for trial in run.manifest.trials if trial.state == "finished"]
    shares = [max(one.stalled_share, sum(one.others_percent.values()) / 100 / run.manifest.cores) for one in machines]
    return sum(shares) / len(shares) if shares else 0.0


def compare_within(run: Run, key: str, margin: float = 0.05) -> list[Comparison]:
    """Each value of a varied key against its first, all else equal; raises HarnessError: the run has no two."""
    if key not in run.conditions or key == "variant":
        raise HarnessError(f"{run.path}: the run did not vary {key!r}; it varied: {', '.join(run.conditions)}")
    trials = per_trial(run)
    others = [other for other in run.conditions if other != key]
    groups = trials.groupby(others, observed=True) if others else [((), trials)]
    first, *rest = trials[key].cat.categories
    sides = [
        (" ".join([*map(str, said), f"{value} against {first}"]), rows[rows[key] == first], rows[rows[key] == value])
        for said, rows in groups
        for value in rest
    ]
    sides = [side for side in sides if len(side[1]) and len(side[2])]
    if not sides:
        raise HarnessError(f"{run.path}: nothing can be compared by {key}: no two of its values have been measured")
    return judged(sides, margin, may_pair=True)


def per_trial(run: Run) -> pd.DataFrame:
    """One row per trial: the metrics, and which trial it was; a percentile that too few messages tell is NaN.

    Raises ConfigError: `run.json` does not say how long warm-up and load were.
    """
    messages = run.measured("response_time_ms", "outcome")
    rows = []
    for trial, of_trial in messages.groupby("trial"):
        outcomes = of_trial["outcome"].value_counts()
        waited = of_trial.loc[of_trial["outcome"] != "refused", "response_time_ms"]
        found = percentiles(waited, SHARES.values())
        rows.append(
            {"trial": trial, "waited": len(waited)}
            | {
                name: value if is_known(len(waited), share) else np.nan
                for (name, share), value in zip(SHARES.items(), found, strict=True)
            }
            | {
                "lost_share": outcomes.get("lost", 0) / len(of_trial),
                "refused_share": outcomes.get("refused", 0) / len(of_trial),
            }
        )
    table = pd.DataFrame(rows, columns=["trial", "waited", *METRICS])
    table["goodput_per_s"] = table["trial"].map(goodput_per_s(run))
    return table.merge(run.trials, on="trial").sort_values(["repetition", "trial"])


def judged(
    sides: list[tuple[str, pd.DataFrame, pd.DataFrame]], margin: float, *, may_pair: bool, unsure_ms: float = 0.0
) -> list[Comparison]:
    """The comparisons of each (name, trials of A, trials of B) in every metric, adjusted for their number.

    Args:
        margin: ratios this near to 1 are equivalent.
        may_pair: whether repetitions of A and B with the same number share seed and schedule.
        unsure_ms: smaller differences of times are undecided, however sure they are: the machines were not alike.

    A variant that loses or is refused more than the other is never better: what it did not answer was not fast.
    """
    found = [_measure(name, metric, a, b, may_pair) for name, a, b in sides for metric in METRICS]
    adjusted = holm(np.array([one.p_value for one in found]))
    tests = int(np.isfinite([one.p_value for one in found]).sum())
    loses_more = {one.name for one in found if one.metric in LOSSES and one.difference.estimate > 0}
    return [
        _with_verdict(one, p_value, margin, tests, one.name in loses_more, unsure_ms)
        for one, p_value in zip(found, adjusted, strict=True)
    ]


def _measure(name: str, metric: str, a: pd.DataFrame, b: pd.DataFrame, may_pair: bool) -> Comparison:
    """One comparison without its verdict."""
    nothing = Shift(math.nan, math.nan, math.nan, math.nan)
    both = a.merge(b, on="repetition", suffixes=("_a", "_b")) if may_pair else a.iloc[:0]
    is_paired = len(both) >= LEAST_PAIRS
    of_a, of_b = (
        (both[f"{metric}_a"].to_numpy(float), both[f"{metric}_b"].to_numpy(float))
        if is_paired
        else (a[metric].to_numpy(float), b[metric].to_numpy(float))
    )
    trials, values = (len(of_a), len(of_b)), (tuple(map(float, of_a)), tuple(map(float, of_b)))
    a_median, b_median = float(np.median(of_a)), float(np.median(of_b))
    note = ""
    if metric in SHARES and np.isnan([*of_a, *of_b]).any():
        least = int(min(a["waited"].min(), b["waited"].min()))
        note = f"{least} messages in a trial; it takes {least_count(SHARES[metric])}"
    elif np.isnan([*of_a, *of_b]).any():
        note = "nothing was due after the warm-up of a trial, which tells no rate"
    elif not is_paired and min(trials) < LEAST_TRIALS:
        note = f"{count(min(trials), 'trial')}; it takes {LEAST_TRIALS}"
    if note:
        return Comparison(
            name, metric, trials, is_paired, a_median, b_median, nothing, nothing, math.nan, "too few", values, note
        )
    test = paired if is_paired else unpaired
    difference, ratio = test(of_a, of_b), nothing
    if metric not in LOSSES and min(of_a.min(), of_b.min()) > 0:
        in_logs = test(np.log(of_a), np.log(of_b))
        estimate, low, high = (math.exp(value) for value in (in_logs.estimate, in_logs.low, in_logs.high))
        ratio = Shift(estimate, low, high, in_logs.p_value)
    p_value = _p_value(difference, ratio)
    if np.ptp([*np.nan_to_num(of_a), *np.nan_to_num(of_b)]) == 0:
        p_value = math.nan  # all are alike (nothing was lost anywhere): nothing is tested, nothing to adjust for
    return Comparison(
        name, metric, trials, is_paired, a_median, b_median, difference, ratio, p_value, "undecided", values, note
    )


def _p_value(difference: Shift, ratio: Shift) -> float:
    return difference.p_value if math.isnan(ratio.p_value) else ratio.p_value


def _with_verdict(
    one: Comparison, p_value: float, margin: float, tests: int, loses_more: bool, unsure_ms: float
) -> Comparison:
    facts = vars(one) | {"p_value": p_value}
    if one.verdict == "too few":
        return Comparison(**facts)
    shift, limit = _scaled(one, margin)
    is_within = -limit <= shift.low and shift.high <= limit
    verdict: Verdict = "undecided"
    note = ""
    if is_within:
        verdict = "equivalent"
    elif p_value < LEVEL and shift.estimate:
        rises = shift.estimate > 0
        verdict = "better" if rises == (one.metric == "goodput_per_s") else "worse"
    else:
        note = _trials_to_decide(shift, limit, one, tests)
    if verdict == "better" and loses_more and one.metric not in LOSSES:
        verdict, note = "undecided", "it answers fewer messages"
    is_unsure = one.metric in SHARES and abs(one.difference.estimate) < unsure_ms
    if is_unsure and verdict in ("better", "worse"):
        verdict, note = "undecided", f"less than the {unsure_ms} ms that a busier machine may make"
    return Comparison(**facts | {"verdict": verdict, "note": note, "is_unsure": is_unsure})


def _scaled(one: Comparison, margin: float) -> tuple[Shift, float]:
    """The shift on the scale on which it is judged (log of the ratio, or difference of shares), and the margin."""
    if math.isnan(one.ratio.estimate):
        return one.difference, _SHARE_MARGIN if one.metric in LOSSES else margin * max(abs(one.a), 1e-9)
    values = (one.ratio.estimate, one.ratio.low, one.ratio.high)
    estimate, low, high = (math.log(value) if value > 0 else -math.inf for value in values)
    return Shift(estimate, low, high, one.ratio.p_value), math.log1p(margin)


def _trials_to_decide(shift: Shift, limit: float, one: Comparison, tests: int) -> str:
    """About how many trials of each side would decide four times in five, if the shift is what it seems to be.

    Intervals narrow with the root of the number of trials. Either the shift stands out from zero, at the level that
    Holm leaves to the first of so many tests; or the interval fits within the margin.
    """
    trials, effect, level = min(one.trials), abs(shift.estimate), LEVEL / tests
    freedom = trials - 1 if one.is_paired else sum(one.trials) - 2
    spread = (shift.high - shift.low) / 2 / stdtrit(freedom, 1 - LEVEL / 2)
    if not (math.isfinite(spread) and spread > 0 and math.isfinite(effect)):
        return "more trials may not decide"

    def needed(level: float, room: float) -> float:
        return trials * (spread * (ndtri(1 - level / 2) + ndtri(_POWER)) / room) ** 2 if room > 0 else math.inf

    standing_out = max(least_trials(level, one.is_paired), needed(level, effect))
    number = max(trials + 1, min(standing_out, needed(LEVEL, limit - effect)))
    return (
        f"about {math.ceil(number)} trials would decide"
        if number <= _MOST_TRIALS
        else f"more than {_MOST_TRIALS} trials"
    )


def least_trials(level: float, is_paired: bool) -> int:
    """With how many trials of each side the exact test can reach this level at all."""
    return next(n for n in itertools.count(2) if 2 / (2**n if is_paired else math.comb(2 * n, n)) <= level)
