"""A comparison as a table of text, as Markdown and as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from loadtests.analysis.compare import LOSSES, Comparison
from loadtests.analysis.shift import Shift

HEADINGS = ("comparison", "metric", "verdict", "A", "B", "B / A", "B − A", "p (Holm)", "trials", "")


def rows(comparisons: list[Comparison]) -> list[tuple[str, ...]]:
    """The cells of a table, under `HEADINGS`."""
    return [
        (
            one.name,
            one.metric,
            one.verdict,
            figure(one.a, one.metric),
            figure(one.b, one.metric),
            "" if one.metric in LOSSES else _interval(one.ratio, "ratio"),
            _interval(one.difference, one.metric),
            "" if math.isnan(one.p_value) else f"{one.p_value:.2g}",
            f"{one.trials[0]} pairs" if one.is_paired else f"{one.trials[0]} and {one.trials[1]}",
            one.note,
        )
        for one in comparisons
    ]


def as_text(comparisons: list[Comparison], margin: float) -> str:
    """For a terminal."""
    table = pd.DataFrame(rows(comparisons), columns=list(HEADINGS))
    return f"{table.to_string(index=False)}\n{explained(margin)}"


def as_markdown(comparisons: list[Comparison], margin: float) -> str:
    """For a pull request."""
    return f"{markdown_table(HEADINGS, rows(comparisons))}\n\n{explained(margin)}"


def markdown_table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The lines of a table."""
    lines = [headings, ["---"] * len(headings), *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_json(comparisons: list[Comparison]) -> str:
    """A list of objects; what is unknown is null, what is infinite is the text `inf`."""
    return json.dumps([plain(asdict(one)) for one in comparisons], indent=2)


def explained(margin: float) -> str:
    """What the columns mean."""
    return (
        f"Medians over trials; in brackets the 95 % interval. `equivalent`: within {100 * margin:.3g} % of A. "
        "`better`, `worse`: not by chance (p below 0.05 after Holm's adjustment). `undecided`: neither. "
        "A lost message counts as infinitely slow. Goodput: answers that came each second, from the end of the warm-up "
        "to the end of the load."
    )


def figure(value: float, metric: str) -> str:
    """A value with its unit."""
    if math.isnan(value):
        return "too few"
    if math.isinf(value):
        return "∞ (lost)" if value > 0 else "−∞"
    if metric in LOSSES:
        return f"{value:.2%}"
    return f"{value:.4g}" + (" ms" if metric.endswith("_ms") else "/s" if metric.endswith("_per_s") else "")


def _interval(shift: Shift, metric: str) -> str:
    if math.isnan(shift.estimate):
        return ""
    low, middle, high = (
        f"{value:+.2%}" if metric in LOSSES else f"{value:.3g}" for value in (shift.low, shift.estimate, shift.high)
    )
    return f"{middle} [{low}, {high}]"


def plain(value: Any) -> Any:
    """What JSON can say: NaN is null, an infinite number the text `inf`."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value.item() if isinstance(value, np.generic) else value
