"""A comparison as one HTML page that needs nothing from elsewhere: table, shift plot, link tables of both runs."""

import html
import math
from pathlib import Path

from loadtests.analysis import comparison_text, document
from loadtests.analysis.compare import SHARES, Comparison
from loadtests.analysis.pictures import Gallery, Picture, finished, panel
from loadtests.analysis.read import Run


def write_page(file: Path, runs: list[Run], comparisons: list[Comparison], margin: float) -> None:
    """Write the page to `file`."""
    title = " against ".join(run.path.resolve().name for run in reversed(runs))
    names = list(dict.fromkeys(one.name for one in comparisons))
    shifts = [_shift(name, [one for one in comparisons if one.name == name], margin) for name in names]
    note = (
        "B / A with its 95 % interval; shaded: the margin. Below 1, B is faster. Dots: each trial over the median of "
        "A, those of A on the left, those of B on the right. Percentiles of too few messages are left out."
    )
    links = "".join(f"<h2>Links of {html.escape(run.path.resolve().name)}</h2>{document.links(run)}" for run in runs)
    body = (
        f"<h1>{html.escape(title)}</h1>"
        + document.table(comparison_text.HEADINGS, comparison_text.rows(comparisons))
        + f"<p>{document.prose(comparison_text.explained(margin))}</p>"
        + Gallery("By how much?", [picture for picture in shifts if picture], note)._repr_html_()
        + links
    )
    file.write_text(document.page(title, body), encoding="utf-8")


def _shift(name: str, comparisons: list[Comparison], margin: float) -> Picture | None:
    """Ratios of the percentiles, p50 to p99.9, with intervals; None if nothing is known."""
    found = [
        one
        for one in comparisons
        if one.metric in SHARES and all(map(math.isfinite, (one.ratio.estimate, one.ratio.low, one.ratio.high)))
    ]
    if not found:
        return None
    figure, [axes] = panel()
    axes.axhspan(1 / (1 + margin), 1 + margin, color="0.9")
    axes.axhline(1, color="black", linewidth=0.8)
    for place, one in enumerate(found):
        spread = [[one.ratio.estimate - one.ratio.low], [one.ratio.high - one.ratio.estimate]]
        for side, (values, colour, mark) in enumerate(zip(one.values, ("0.45", "#D55E00"), "o^", strict=True)):
            known = [value / one.a for value in values if math.isfinite(value)]
            at = [place + (side - 0.5) * 0.4] * len(known)
            label = f"{'AB'[side]}'s trials"
            axes.scatter(at, known, s=12, alpha=0.6, linewidth=0, color=colour, marker=mark, label=label)
        axes.errorbar([place], [one.ratio.estimate], yerr=spread, fmt="s", color="#0072B2", capsize=4, label="B / A")
    axes.set_xticks(range(len(found)), [one.metric.removesuffix("_ms") for one in found])
    axes.set(title=name, ylabel="response time, B / A", xlim=(-0.5, len(found) - 0.5))
    told = ", ".join(f"{one.metric} {one.ratio.estimate:.3g} ({one.verdict})" for one in found)
    return finished(figure, f"Ratio of response times, {name}: {told}")
