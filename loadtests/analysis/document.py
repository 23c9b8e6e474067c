"""The parts of HTML that a report and a comparison share; all that came from a file is escaped."""

import html
import re
from collections.abc import Sequence

from loadtests.analysis.read import Run
from loadtests.analysis.stats import link_report

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;max-width:1240px;margin:0 auto;padding:16px}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.25rem;margin:1.6em 0 .4em}h3{font-size:1.05rem;margin:1.4em 0 .3em}
.verdict{border-left:6px solid #0072B2;background:#eef5fb;padding:8px 14px}.verdict.bad{border-color:#D55E00;
background:#fdf1ea}ul{margin:.3em 0;padding-left:1.3em}.scroll{overflow-x:auto}table{border-collapse:collapse;
font-size:.9rem;font-variant-numeric:tabular-nums}th,td{padding:4px 10px;border-bottom:1px solid #ddd;text-align:right;
white-space:nowrap}th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
td.long{white-space:normal;min-width:9em;text-align:left}td.off{background:#fdf1ea;font-weight:bold}pre{background:#f4f4f4;padding:8px;overflow-x:auto;white-space:pre-wrap}
.few{color:#666}@media(max-width:600px){body{padding:10px}table{font-size:.82rem}th,td{padding:3px 6px}}
@media print{.scroll{overflow:visible}table{font-size:.6rem}th,td{padding:2px 3px}h2,h3{break-after:avoid}}
"""


#: Cells with more characters than this are sentences, which wrap.
_LONGEST_FIGURE = 30


def page(title: str, body: str) -> str:
    """A page that needs nothing from elsewhere."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def links(run: Run) -> str:
    """What each link was asked for, and what it did."""
    rows_of = link_report(run)
    if rows_of.empty:
        return "<p>This run used no link of its own.</p>"
    heads = [
        str(column).removesuffix("_ratio").replace("_ms", " (ms)").replace("_mbps", " (Mbit/s)") for column in rows_of
    ]
    rows = [[str(cell) for cell in row] for row in rows_of.itertuples(index=False)]
    note = (
        "<p class=few>Asked for → measured by probes just before and after each trial, means over trials; up: client "
        "to server, both: there and back. Loss, reordered and duplicated are shares of the packets. Coloured, with an "
        "exclamation mark: outside its tolerance.</p>"
    )
    return table(heads, rows) + note


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where the screen is narrow; every cell is escaped."""
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(said: str) -> str:
    is_sentence = len(said) > _LONGEST_FIGURE
    kind = "few" if said == "too few" else "off" if said.endswith(" !") else "long" if is_sentence else ""
    kind = f' class="{kind}"' if kind else ""
    return f"<td{kind}>{text(said)}</td>"


def prose(value: str) -> str:
    """Escaped; what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", text(value))


def text(value: str) -> str:
    """Escaped."""
    return html.escape(value, quote=True)
