"""What network and machine took, as a table of text, as JSON, and as one HTML page with a figure for each variant."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from loadtests.analysis import document
from loadtests.analysis.comparison_text import figure as value_of
from loadtests.analysis.comparison_text import markdown_table, plain
from loadtests.analysis.machine_share import Share
from loadtests.analysis.pictures import PALETTE, Gallery, Picture, finished, panel

HEADINGS = (
    "variant",
    "percentile",
    "trials",
    "real",
    "network and protocol",
    "machine and programs",
    "their share",
    "",
)
EXPLAINED = (
    "Medians over trials. Network and protocol: the same in virtual time, where computing takes none. Machine and "
    "programs: real minus virtual, in brackets the 95 % interval (exact, over trials)."
)


def rows(shares: list[Share]) -> list[tuple[str, ...]]:
    """The cells of a table, under `HEADINGS`."""
    return [
        (
            one.variant,
            one.percentile,
            f"{one.trials[0]} and {one.trials[1]}",
            value_of(one.real_ms, "_ms"),
            value_of(one.network_ms, "_ms"),
            _interval(one),
            "" if one.note or not math.isfinite(one.real_ms) else f"{one.machine_ms.estimate / one.real_ms:.0%}",
            one.note,
        )
        for one in shares
    ]


def as_text(shares: list[Share]) -> str:
    """For a terminal."""
    return f"{pd.DataFrame(rows(shares), columns=list(HEADINGS)).to_string(index=False)}\n{EXPLAINED}"


def as_markdown(shares: list[Share]) -> str:
    """For a pull request."""
    return f"{markdown_table(HEADINGS, rows(shares))}\n\n{EXPLAINED}"


def as_json(shares: list[Share]) -> str:
    """A list of objects; what is unknown is null."""
    return json.dumps([plain(asdict(one)) for one in shares], indent=2)


def write_page(file: Path, title: str, shares: list[Share]) -> None:
    """Write the page to `file`."""
    note = "Dot: the real figure. Bar: the 95 % interval of what the machine added."
    body = (
        f"<h1>{document.text(title)}</h1>"
        + document.table(HEADINGS, rows(shares))
        + f"<p>{document.prose(EXPLAINED)}</p>"
        + Gallery("Network or machine?", pictures(shares), note)._repr_html_()
    )
    file.write_text(document.page(title, body), encoding="utf-8")


def pictures(shares: list[Share]) -> list[Picture]:
    """One for each variant of which anything is known."""
    names = list(dict.fromkeys(one.variant for one in shares))
    known = {name: [one for one in shares if one.variant == name and _is_known(one)] for name in names}
    return [_picture(name, of) for name, of in known.items() if of]


def _picture(name: str, shares: list[Share]) -> Picture:
    drawn, [axes] = panel()
    places = range(len(shares))
    network = [one.network_ms for one in shares]
    added = [max(0.0, one.machine_ms.estimate) for one in shares]  # less than nothing has no height: see its interval
    axes.bar(places, network, width=0.55, color=PALETTE[0], label="network and protocol")
    axes.bar(places, added, width=0.55, bottom=network, color=PALETTE[4], label="machine and programs")
    spread = [
        [one.machine_ms.estimate - one.machine_ms.low for one in shares],
        [one.machine_ms.high - one.machine_ms.estimate for one in shares],
    ]
    tops = [one.network_ms + one.machine_ms.estimate for one in shares]
    axes.errorbar(places, tops, yerr=spread, fmt="none", color="black", capsize=4)
    axes.plot(places, [one.real_ms for one in shares], "o", color="black", markersize=4, label="real")
    axes.set_xticks(places, [one.percentile for one in shares])
    axes.set(title=name, ylabel="response time (ms)", ylim=(0, None))
    told = ", ".join(
        f"{one.percentile} {one.network_ms:.4g} ms network, {one.machine_ms.estimate:.3g} ms machine" for one in shares
    )
    return finished(drawn, f"What network and machine took of the response time, {name}: {told}")


def _is_known(one: Share) -> bool:
    return all(map(math.isfinite, (one.real_ms, one.network_ms, one.machine_ms.low, one.machine_ms.high)))


def _interval(one: Share) -> str:
    shift = one.machine_ms
    if math.isnan(shift.estimate):
        return ""
    return f"{shift.estimate:+.3g} ms [{shift.low:+.3g}, {shift.high:+.3g}]"
