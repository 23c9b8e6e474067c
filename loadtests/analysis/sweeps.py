"""How response time follows what a scenario sweeps: a curve over one quantity, a map over two."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from scipy.special import stdtrit

from loadtests.analysis.compare import per_trial
from loadtests.analysis.pictures import DASHES, MARKERS, PALETTE, Gallery, Picture, finished, panel, plain_log
from loadtests.analysis.read import Run
from loadtests.config.units import BitsPerSecond, ByteCount, PerSecond, Quantity, Ratio, Seconds

_UNITS: tuple[tuple[type[Quantity], str, float], ...] = (
    (Seconds, "ms", 1e3),
    (Ratio, "%", 1e2),
    (BitsPerSecond, "Mbit/s", 1e-6),
    (PerSecond, "per s", 1.0),
    (ByteCount, "bytes", 1.0),
)
_METRICS = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99"}
_MAPPED = ("p50_ms", "p99_ms")
#: What stands in a cell instead of a number, and its colour, which no number has.
_WITHOUT_NUMBER = {"lost": PALETTE[1], "too few": "#E5E5E5"}
#: From this ratio of the largest to the smallest value on, the axis is logarithmic.
_WIDE = 20


def sweep(run: Run) -> Gallery:
    """Percentiles over the first swept quantity, a curve for each value of whatever else was varied."""
    question = "How does response time follow what was swept?"
    swept = [key for key in run.conditions if quantities(run, key)]
    if not swept:
        note = "This run sweeps no quantity; `chatlab run loss-sweep`, `delay-sweep` and `bandwidth-sweep` do."
        return Gallery(question, [], note)
    trials = per_trial(run)
    pictures = [
        picture for metric, name in _METRICS.items() if (picture := _curves(run, trials, swept[0], metric, name))
    ]
    note = (
        "A dot for each trial; the curve joins their geometric means, bars are 95 % intervals (Student's t on the "
        "logs, from three trials on). Left out: trials with too few messages for the percentile, or with "
        "so many lost that it is infinite. Curves are drawn a little beside each other, so that all bars are seen."
    )
    return Gallery(question, pictures, note)


def heat_map(run: Run) -> Gallery:
    """Median and p99 for each pair of two swept quantities, a map for each value of whatever else was varied."""
    question = "Which combinations are slow?"
    swept = [key for key in run.conditions if quantities(run, key)]
    if len(swept) < 2:
        return Gallery(question, [], "This run does not sweep two quantities; `chatlab run loss-delay` does.")
    trials = per_trial(run)
    others = [key for key in run.conditions if key not in swept[:2]]
    parts = trials.groupby(others, observed=True) if others else [((), trials)]
    groups = [(_label(run, others, said), of) for said, of in parts]
    maps = [_map(of, swept[0], swept[1], metric, said) for said, of in groups for metric in _MAPPED]
    note = (
        "Median over trials, in ms; the colour is logarithmic. Lost: so many were lost that the percentile is infinite."
    )
    return Gallery(question, [picture for picture in maps if picture], note)


def quantities(run: Run, key: str) -> tuple[list[float], str] | None:
    """The values of a varied key in the scenario's order, and their unit, which counts have none of.

    None if they are no numbers, or all alike, or seeds, of which one is no more than another.
    """
    labels = [str(label) for label in run.trials[key].cat.categories]
    if all(label.isdecimal() for label in labels) and len(set(labels)) > 1 and key != "seed":
        return [float(label) for label in labels], ""
    for kind, unit, factor in _UNITS:
        try:
            values = [factor * kind.from_yaml(label) for label in labels]
        except ValueError:
            continue
        return (values, unit) if len(set(values)) > 1 else None
    return None


def _curves(run: Run, trials: pd.DataFrame, swept: str, metric: str, name: str) -> Picture | None:
    values, unit = quantities(run, swept) or ([], "")
    known = trials[np.isfinite(trials[metric].astype(float))]
    if known.empty:
        return None
    others = [key for key in run.conditions if key not in (swept, "variant")]
    groups = list(known.groupby(others, observed=True)) if others else [((), known)]
    figure, [axes] = panel()
    is_log = min(values) > 0 and max(values) / min(values) >= _WIDE
    for place, (said, of) in enumerate(groups):
        beside = _beside(values, place - (len(groups) - 1) / 2, len(groups), is_log=is_log)
        value_of = dict(zip(run.trials[swept].cat.categories, beside, strict=True))
        colour, marker = PALETTE[place % 8], MARKERS[place % 8]
        x = np.array([value_of[label] for label in of[swept]], float)
        axes.scatter(x, of[metric], s=14, alpha=0.4, linewidth=0, color=colour, marker=marker)
        ends = [(value, *_mean_of_logs(of.loc[x == value, metric].to_numpy(float))) for value in sorted(set(x))]
        at, middle, low, high = map(np.array, zip(*ends, strict=True))
        spread = np.nan_to_num([middle - low, high - middle])
        axes.errorbar(
            at,
            middle,
            yerr=spread,
            label=_label(run, others, said) or None,
            capsize=3,
            ms=5,
            color=colour,
            marker=marker,
            ls=DASHES[place % 8],
        )
    axes.set(
        title=f"{name} over {swept}",
        xlabel=f"{swept} ({unit})" if unit else swept,
        ylabel="response time (ms)",
        yscale="log",
    )
    if is_log:
        axes.set_xscale("log")
        plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    return finished(figure, f"{name} of response time over {swept}, with 95 % intervals")


def _beside(values: list[float], place: float, curves: int, *, is_log: bool) -> list[float]:
    """The values, moved along the axis a little, so that the bars of a curve hide none of another's.

    Args:
        place: how many steps to the right; below 0 to the left.
        curves: all of them together stay near their value.
    """
    at = np.log(values) if is_log else np.array(values)
    gaps = np.diff(np.unique(at))
    moved = at + place * min(0.012 * gaps.sum(), 0.5 * gaps.min() / curves)
    return [float(value) for value in (np.exp(moved) if is_log else moved)]


def _mean_of_logs(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float, float]:
    """Geometric mean, and the ends of its 95 % interval; NaN with fewer than three values."""
    logs = np.log(values)
    middle = float(np.exp(logs.mean()))
    if len(logs) < 3:
        return middle, math.nan, math.nan
    half = float(stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return middle, middle * math.exp(-half), middle * math.exp(half)


def _map(trials: pd.DataFrame, rows: str, columns: str, metric: str, said: str) -> Picture | None:
    """None if no cell is known."""
    import seaborn as sns  # which takes long, and few runs have a map

    table = trials.groupby([rows, columns], observed=False)[metric].median().unstack(columns).astype(float)
    shown = table.replace(np.inf, np.nan)
    if shown.isna().to_numpy().all():
        return None
    cells = table.map(_cell)
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    figure, [axes] = panel()
    sns.heatmap(
        shown, annot=cells, fmt="", cmap="cividis", norm=LogNorm(low, max(high, 1.01 * low)), ax=axes,
        cbar_kws={"label": "response time (ms)"}, linewidths=1,
    )  # fmt: skip
    for (row, column), word in np.ndenumerate(cells.to_numpy()):
        if colour := _WITHOUT_NUMBER.get(word):  # which seaborn leaves blank
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white"))
            axes.text(column + 0.5, row + 0.5, word, ha="center", va="center")
    axes.grid(visible=False)
    if bar := axes.collections[0].colorbar:
        plain_log(bar.ax.yaxis)
    title = _METRICS[metric] + (f", {said}" if said else "")
    axes.set(title=title, xlabel=columns, ylabel=rows)
    axes.tick_params(rotation=0)
    return finished(figure, f"{title} of response time for each {rows} and {columns}: {_told(cells)}")


def _cell(value_ms: float) -> str:
    if math.isnan(value_ms):
        return "too few"
    if math.isinf(value_ms):
        return "lost"
    return f"{value_ms:,.0f}" if value_ms >= 100 else f"{value_ms:.3g}"


def _told(cells: pd.DataFrame) -> str:
    """The map in words, for whoever cannot see it."""
    return "; ".join(
        f"{row}: " + ", ".join(f"{column} {said}" for column, said in of.items()) for row, of in cells.iterrows()
    )


def _label(run: Run, keys: list[str], said: Iterable[object]) -> str:
    """The values of these keys in words; a bare number is told with its name."""
    return " ".join(
        f"{key.rpartition('.')[2]} {value}" if quantities(run, key) else str(value)
        for key, value in zip(keys, said, strict=True)
    )
