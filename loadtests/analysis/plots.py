"""Figures of a run: each function takes a Run and returns a matplotlib Figure, axes labelled with units.

The first varied key of the scenario is the condition (panels, or the x axis), the second one is the colour.
"""

import functools
from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from loadtests.analysis.read import Run

_RESPONSE_TIME = "response time (ms)"
#: Okabe–Ito: distinguishable with any colour vision, and in print.
_PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"]


def _needs_messages(draw: Callable[[Run], Figure]) -> Callable[[Run], Figure]:
    """Without a message that was answered there is nothing to draw, and the figure says so."""

    @functools.wraps(draw)
    def drawn(run: Run) -> Figure:
        if run.messages["response_time_ms"].notna().any():
            return draw(run)
        figure, axes = plt.subplots(figsize=(6, 1))
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No message was answered after the warm-up.", ha="center", va="center")
        plt.close(figure)
        return figure

    return drawn


def set_style() -> None:
    """The house style, for all figures of a notebook."""
    sns.set_theme(style="whitegrid", context="notebook", palette=_PALETTE)
    plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "axes.titleweight": "bold"})


@_needs_messages
def distribution(run: Run) -> Figure:
    """ECDF of response times, a panel for each condition, a curve for each colour; lost messages keep it below 1."""
    condition, colour = _roles(run)
    messages = run.messages.assign(response_time_ms=lambda rows: rows["response_time_ms"].fillna(float("inf")))
    grid = sns.displot(
        messages,
        x="response_time_ms",
        col=condition,
        hue=colour,
        kind="ecdf",
        log_scale=True,
        col_wrap=3 if _count(messages, condition) > 3 else None,
        facet_kws={"sharex": False},
        palette=_palette(messages, colour),
        height=3.6,
        aspect=1.15,
    )
    for panel in grid.axes.flat:
        _plain_log_axis(panel.xaxis)
        panel.axhline(0.99, color="grey", linewidth=0.8, linestyle=":")
    grid.set_axis_labels(_RESPONSE_TIME, "share answered by then")
    return _titled(grid, condition, "How long does a message take? (dotted: 99 %)")


@_needs_messages
def over_time(run: Run) -> Figure:
    """Each message at its intended time: retransmissions are the steps above the floor, overload is a slope."""
    condition, colour = _roles(run)
    messages = run.messages.dropna(subset="response_time_ms")
    grid = sns.relplot(
        messages,
        x="intended_s",
        y="response_time_ms",
        col=condition,
        hue=colour,
        style=colour,
        col_wrap=3 if _count(messages, condition) > 3 else None,
        facet_kws={"sharey": False},
        palette=_palette(messages, colour),
        s=22,
        alpha=0.7,
        linewidth=0,
        height=3.6,
        aspect=1.15,
    )
    changes = run.link_changes
    for value, panel in grid.axes_dict.items():
        panel.set_ylim(bottom=0)
        for time_s in changes.loc[changes[condition] == value, "time_s"].round(1).unique():
            panel.axvline(time_s, color="black", alpha=0.5, linewidth=0.9, linestyle="--", zorder=1)
    grid.set_axis_labels("intended time of the message (s)", _RESPONSE_TIME)
    return _titled(
        grid, condition, "When were messages slow?" + (" (dashed: the link changes)" if len(changes) else "")
    )


@_needs_messages
def comparison(run: Run) -> Figure:
    """Box plots of response times side by side: box = quartiles, whiskers = 1st and 99th percentile, dots beyond."""
    condition, colour = _roles(run)
    messages = run.messages.dropna(subset="response_time_ms")
    figure, axes = plt.subplots(figsize=(9, 4.2))
    sns.boxplot(
        messages,
        x=condition,
        y="response_time_ms",
        hue=colour,
        palette=_palette(messages, colour),
        log_scale=(False, True),
        whis=(1, 99),
        gap=0.15,
        flierprops={"markersize": 3, "alpha": 0.6},
        ax=axes,
    )
    _plain_log_axis(axes.yaxis)
    axes.set(xlabel=condition or "", ylabel=_RESPONSE_TIME)
    axes.set_title("Conditions side by side (whiskers: 1st and 99th percentile)")
    if colour:
        sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), title=colour)
    plt.close(figure)
    return figure


@_needs_messages
def percentiles(run: Run) -> Figure:
    """Median, p95 and p99 of response time for each condition: where does the tail leave the median?"""
    condition, colour = _roles(run)
    keys = [key for key in (condition, colour) if key]
    times = run.messages.groupby(keys, observed=True)["response_time_ms"]
    shares = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    rows = pd.concat({name: times.quantile(share) for name, share in shares.items()})
    rows = rows.rename_axis(["percentile", *keys]).reset_index()
    grid = sns.catplot(
        rows,
        x=condition,
        y="response_time_ms",
        hue=colour,
        col="percentile",
        kind="point",
        palette=_palette(rows, colour),
        dodge=0.25 if colour else False,
        linestyle="none",
        height=3.6,
        aspect=0.9,
    )
    for panel in grid.axes.flat:
        panel.set_yscale("log")
        _plain_log_axis(panel.yaxis)
        panel.tick_params(axis="x", rotation=20)
    grid.set_axis_labels(condition, _RESPONSE_TIME)
    return _titled(grid, "percentile", "Median and tail")


def _roles(run: Run) -> tuple[str, str | None]:
    """Which varied key is the condition, and which one the colour."""
    conditions = run.conditions
    return conditions[0], conditions[1] if len(conditions) > 1 else None


def _count(rows: pd.DataFrame, key: str) -> int:
    return rows[key].nunique()


def _palette(rows: pd.DataFrame, colour: str | None) -> list[str] | None:
    return _PALETTE[: _count(rows, colour)] if colour else None


def _titled(grid: sns.axisgrid.Grid, condition: str, title: str) -> Figure:
    grid.set_titles("{col_name}" if condition in ("link", "percentile", "variant") else f"{condition} = {{col_name}}")
    grid.figure.suptitle(title, y=1.04, fontweight="bold")
    figure: Figure = grid.figure
    plt.close(figure)  # a notebook shows the figure that a cell returns; left open, it would be shown twice
    return figure


def _plain_log_axis(axis: Axis) -> None:
    """`200`, not `2×10²`; and ticks at 1, 2 and 5, since a narrow range may hold no power of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
