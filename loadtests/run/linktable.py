"""The rows of `link.csv`: what a link was measured to do before and after its trial, and how it changed meanwhile."""

from typing import Literal

import msgspec
import pandas as pd

from loadtests.link.backends.links import Links
from loadtests.samples import TABLES

#: Before or after the load.
When = Literal["before", "after"]


def measured(links: Links, when: When) -> pd.DataFrame:
    """What calibration finds."""
    return _table([msgspec.to_builtins(row) for row in links.calibrate()]).assign(when=when)


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
