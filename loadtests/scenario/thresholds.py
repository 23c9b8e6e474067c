"""`response_time_ms.p99 < 500`: what a run must keep, checked on each variant's row of the summary."""

import itertools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from chat.words import count
from loadtests.percentiles import SHARES, is_known, least_count
from loadtests.samples import TABLES

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}
_FORM = re.compile(
    r"^(?P<metric>[\w.]+)\s*(?P<sign><=|>=|==|<|>)\s*(?P<limit>\d+(?:\.\d*)?|\.\d+)(?:\s+where\s+(?P<where>.+))?$"
)
_RESPONSE_TIME = "response_time_ms."
#: Times that are none of response: thresholds call them as the summary does.
_OTHER_TIMES = ("jitter_ms", "ipdv_p95_ms", "pdv_p95_ms", "registration_ms")
#: Metric as a user writes it → column of `summary.csv`.
METRICS = {
    f"{_RESPONSE_TIME}{column.removesuffix('_ms')}"
    if column.endswith("_ms") and column not in _OTHER_TIMES
    else column: column
    for column in TABLES["summary"]
    if column != "variant"
}


@dataclass(frozen=True)
class Threshold:
    """One limit; `where` restricts it to the variants with these values."""

    text: str
    column: str
    sign: str
    limit: float
    where: dict[str, str] = field(default_factory=dict)

    expected: ClassVar = (
        f"METRIC < LIMIT [where KEY=VALUE, …] with < <= == >= >, such as '{_RESPONSE_TIME}p99 < 500 where link=lan'"
    )

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        """Raises ValueError: not of the expected form, or no such metric."""
        match = _FORM.match(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"expected {cls.expected}; got {value!r}")
        # In earlier runs all times were said to be of response.
        column = METRICS.get(match["metric"]) or METRICS.get(f"{match['metric'].removeprefix(_RESPONSE_TIME)}_ms")
        if column is None:
            raise ValueError(f"unknown metric {match['metric']!r}; allowed: {', '.join(METRICS)}")
        where = {}
        for condition in (match["where"] or "").split(",") if match["where"] else ():
            key, equals, wanted = (part.strip() for part in condition.partition("="))
            if not equals:
                raise ValueError(f"expected {cls.expected}; got {value!r}")
            where[key] = wanted
        return cls(match[0], column, match["sign"], float(match["limit"]), where)

    def applies_to(self, variant: dict[str, str]) -> bool:
        """Whether a variant is among those that this threshold is for."""
        return all(variant.get(key) == wanted for key, wanted in self.where.items())

    def is_kept_by(self, measured: float) -> bool:
        """A value that is missing (NaN: nothing was answered) keeps no limit."""
        return _COMPARISONS[self.sign](measured, self.limit)


def contradiction(thresholds: list[Threshold]) -> tuple[Threshold, Threshold] | None:
    """Two thresholds that no value could keep both, for a variant that both may be for."""
    for one, other in itertools.combinations(thresholds, 2):
        clash = any(one.where[key] != other.where[key] for key in one.where.keys() & other.where.keys())
        if one.column != other.column or clash:
            continue
        # Which values are kept changes only at the limits: these, and what is below, between and above, are all cases.
        low, high = sorted((one.limit, other.limit))
        if not any(
            one.is_kept_by(value) and other.is_kept_by(value)
            for value in (low - 1, low, (low + high) / 2, high, high + 1)
        ):
            return one, other
    return None


@dataclass(frozen=True)
class Check:
    """A threshold held against one variant."""

    threshold: str
    variant: str
    measured: float
    passed: bool
    #: Why the value tells little; empty if it does not.
    note: str = ""

    def __str__(self) -> str:
        measured = f"{self.measured:.6g}" + (f"; {self.note}" if self.note else "")
        return f"{'passed' if self.passed else 'MISSED'}: {self.threshold} ({self.variant}: {measured})"


def check(thresholds: list[Threshold], rows: list[tuple[dict[str, str], dict[str, Any]]]) -> list[Check]:
    """Every threshold against every variant that it is for.

    Args:
        thresholds: the limits.
        rows: of each variant the values that set it apart, and its summary, with the number of messages that its
            percentiles are of (`waited`).
    """
    return [
        Check(threshold.text, str(summary["variant"]), measured, threshold.is_kept_by(measured), note)
        for threshold in thresholds
        for variant, summary in rows
        if threshold.applies_to(variant)
        for measured in [float(summary[threshold.column])]
        for note in [_too_few(threshold.column, int(summary["waited"]))]
    ]


def _too_few(column: str, waited: int) -> str:
    """That so many messages do not tell this percentile; empty if they do, or if it is none."""
    share = SHARES.get(column.removesuffix("_ms"))
    if share is None or is_known(waited, share):
        return ""
    return f"too few to tell: {count(waited, 'message')}, it takes {least_count(share):,}"
