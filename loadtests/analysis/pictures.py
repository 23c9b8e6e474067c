"""Pictures that a notebook and a report show alike: self-contained, with an alternative text, legible on a phone.

Each panel is a picture of its own, drawn in the size in which it is read; a page lays as many side by side as fit.
"""

import base64
import html
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from loadtests.analysis.document import prose

#: Okabe–Ito: distinguishable with any colour vision, and in print.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
#: Dashes tell curves apart in print.
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-", "--"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
_WIDTH_IN, _HEIGHT_IN, _DPI = 4.7, 3.3, 150
#: What fits into a line of a title and of a legend, and what one more line adds to the height.
_TITLE_LETTERS, _LEGEND_LETTERS, _LINE_IN = 42, 50, 0.19
_STYLE: dict[Any, Any] = {
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "font.size": 10,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Picture:
    """One panel."""

    png: bytes
    #: What it shows, for whoever cannot see it.
    alt: str

    def to_html(self) -> str:
        """An `img` that needs nothing from elsewhere."""
        data = base64.b64encode(self.png).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{html.escape(self.alt, quote=True)}">'


@dataclass(frozen=True)
class Gallery:
    """Panels that answer one question; shown by a notebook as they are in a report."""

    title: str
    pictures: Sequence[Picture]
    #: How to read them, or why there are none.
    note: str = ""

    def _repr_html_(self) -> str:
        pictures = "".join(picture.to_html() for picture in self.pictures)
        note = f"<p>{prose(self.note)}</p>" if self.note else ""
        return (
            "<style>.chatlab-gallery{display:flex;flex-wrap:wrap;gap:12px}"
            ".chatlab-gallery img{width:400px;max-width:100%;height:auto}</style>"
            f'<h3>{html.escape(self.title)}</h3>{note}<div class="chatlab-gallery">{pictures}</div>'
        )


def panel(rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of one panel, or of several above each other that share their x axis."""
    with mpl.style.context(["seaborn-v0_8-whitegrid", _STYLE]):
        height_in = _HEIGHT_IN if rows == 1 else 1.25 * rows + 0.8
        # Not pyplot's, which would show a panel in a notebook by itself, one that stayed empty too.
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)
        for one in axes[:, 0]:
            one.set_prop_cycle(color=PALETTE)
    return figure, list(axes[:, 0])


def finished(figure: Figure, alt: str) -> Picture:
    """The picture of a panel; the legend goes below the data, however many entries it has."""
    with mpl.rc_context(_STYLE):
        shown: dict[str, Any] = {}
        for axes in figure.axes:
            axes.title.set_text(fitting(axes.get_title(), _TITLE_LETTERS))
            handles, labels = axes.get_legend_handles_labels()
            shown |= {fitting(text, _LEGEND_LETTERS): handle for text, handle in zip(labels, handles, strict=True)}
        more_lines = sum(axes.get_title().count("\n") for axes in figure.axes)
        if shown:
            longest = max(map(len, shown))
            columns = min(len(shown), 3 if longest < 14 else 2 if longest < 30 else 1)
            if columns == 1:
                more_lines += sum(1 + label.count("\n") for label in shown) - math.ceil(len(shown) / 2)
            figure.set_figheight(figure.get_figheight() + _LINE_IN * more_lines)
            figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=columns, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
    return Picture(buffer.getvalue(), alt)


def fitting(text: str, letters: int) -> str:
    """The text in lines no longer than that: what is varied may be a whole link."""
    return textwrap.fill(text, letters)


def crosses(axes: Axes, at: Iterable[float], colour: str) -> None:
    """At the upper edge: there a message was lost."""
    x = list(at)
    [drawn] = axes.plot(x, [1] * len(x), "x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
    drawn.set_in_layout(False)


def from_zero(axes: Axes, least: float = 0.0) -> None:
    """The y axis begins at 0, and ends above all that is drawn, at `least` or higher."""
    top = max(axes.dataLim.y1, least)
    axes.set_ylim(0, 1.08 * top if 0 < top < float("inf") else None)


def plain_log(axis: Axis) -> None:
    """`200`, not `2×10²`; the narrower the range, the more ticks in each power of ten."""
    low, high = sorted(axis.get_view_interval())
    ratio = high / low if low > 0 else 1.0
    subs = (1.0,) if ratio > 200 else (1.0, 2.0, 5.0) if ratio > 6 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e4 else f"{value:,.0f}"))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
