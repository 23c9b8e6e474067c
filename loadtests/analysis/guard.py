"""`--fail-if 'p99 > +10%'`: a change that a comparison must not show."""

import re
from dataclasses import dataclass
from typing import Self

from loadtests.analysis.compare import LOSSES, METRICS, Comparison
from loadtests.analysis.shift import LEVEL
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

    def broken_by(self, comparisons: list[Comparison]) -> list[str]:
        """A sentence for each comparison that is beyond the limit, and neither by chance nor by a busier machine.

        Raises HarnessError: one of them had too few trials or messages to tell; a guard that cannot see is none.
        """
        broken = []
        for one in comparisons:
            if one.metric != self.metric:
                continue
            if one.verdict == "too few":
                raise HarnessError(f"--fail-if {self.text!r}: {one.name}: too few to tell: {one.note}")
            change = one.difference.estimate if one.metric in LOSSES else one.ratio.estimate - 1
            is_beyond = change > self.limit if self.is_above else change < self.limit
            if is_beyond and one.p_value < LEVEL and not one.is_unsure:
                broken.append(f"FAILED: {self.text}: {one.name}: {change:+.1%} (p = {one.p_value:.2g})")
        return broken
