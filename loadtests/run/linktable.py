"""The rows of `link.csv`: what a link was measured to do before and after its trial, and how it changed meanwhile."""

from collections.abc import Callable
from typing import Literal

import msgspec
import pandas as pd

from loadtests.link.backends.links import Links
from loadtests.samples import TABLES
from loadtests.stalls.intervals import Interval

#: Before or after the load.
When = Literal["before", "after"]


def measured(links: Links, when: When, disturbances: Callable[[], list[Interval]]) -> pd.DataFrame:
    """What calibration finds, beside these disturbances."""
    return _table([msgspec.to_builtins(row) for row in links.calibrate(disturbances)]).assign(when=when)


def changed(links: Links, start_ns: int) -> pd.DataFrame:
    """What the timelines have changed since the load began at `start_ns` (CLOCK_MONOTONIC)."""
    rows = [
        {
            "path": change.path,
            "direction": change.direction,
            "time_s": (change.at_ns - start_ns) / 1e9,
            "change": change.text,
        }
        for change in links.changes()
    ]
    return _table(rows).assign(when="change")


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(TABLES["link"]))
