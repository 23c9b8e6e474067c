"""`--fail-if 'p99 > +10%'`: a change that a comparison must not show."""

import math
import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from chat.words import count
from loadtests.analysis.compare import LOSSES, METRICS, Comparison, least_trials
from loadtests.analysis.shift import LEVEL, holm
from loadtests.errors import HarnessError

_FORM = re.compile(r"^\s*(?P<metric>[\w.]+)\s*(?P<sign>[<>])\s*(?P<limit>[+-]?\d+(?:\.\d+)?)\s*%\s*$")
_NAMES = {name.removesuffix("_ms").removesuffix("_per_s").removesuffix("_share"): name for name in METRICS}


@dataclass(frozen=True)
class Guard:
    """A limit of a change: in percent of A, or in percentage points for shares of messages."""

    text: str
    metric: str
    is_above: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises HarnessError: not of the form METRIC > +N%, or no such metric."""
        match = _FORM.match(text)
        if match is None or match["metric"] not in _NAMES:
            raise HarnessError(
                f"--fail-if {text!r}: expected METRIC > +N% or METRIC < -N%, such as 'p99 > +10%'; "
                f"metrics: {', '.join(_NAMES)}"
            )
        return cls(text.strip(), _NAMES[match["metric"]], match["sign"] == ">", float(match["limit"]) / 100)


def broken(guards: list[Guard], comparisons: list[Comparison]) -> list[str]:
    """A sentence for each comparison that is beyond a limit, and neither by chance nor by a busier machine.

    P-values are adjusted for the comparisons that the guards ask for; the others were made for the reader.

    Raises HarnessError: one of them had too few trials or messages to tell; a guard that cannot see is none.
    """
    metrics = {guard.metric for guard in guards}
    asked = [one for one in comparisons if one.metric in metrics]
    p_values = holm(np.array([one.p_alone for one in asked]))
    tests = int(np.isfinite(p_values).sum())
    sentences = []
    for guard in guards:
        for one, p_value in zip(asked, p_values, strict=True):
            if one.metric != guard.metric:
                continue
            if reason := _why_blind(one, tests):
                raise HarnessError(f"--fail-if {guard.text!r}: {one.name}: too few to tell: {reason}")
            change = _change(one)
            is_beyond = change > guard.limit if guard.is_above else change < guard.limit
            if is_beyond and p_value < LEVEL and not one.is_unsure:
                sentences.append(f"FAILED: {guard.text}: {one.name}: {change:+.1%} (p = {p_value:.2g})")
    return sentences


def _change(one: Comparison) -> float:
    """Of the shares of messages in points, of all else relative to A."""
    if one.metric in LOSSES:
        return one.difference.estimate
    if not math.isnan(one.ratio.estimate):
        return one.ratio.estimate - 1
    # A goodput of 0 in some trial has no logarithm; to a guard it is the largest fall of all.
    return one.difference.estimate / one.a if one.a else math.copysign(math.inf, one.difference.estimate)


def _why_blind(one: Comparison, tests: int) -> str:
    """Why no difference, however large, could be told from chance; empty if one could."""
    if one.verdict == "too few":
        return one.note
    least = least_trials(LEVEL / tests, one.is_paired) if tests else 0
    if min(one.trials) >= least:
        return ""
    return f"{count(min(one.trials), 'trial')}; to guard {count(tests, 'comparison')} at once takes {least}"
