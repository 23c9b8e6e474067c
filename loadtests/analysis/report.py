"""A run directory → `report.html`: one page that needs nothing from elsewhere; the verdict first."""

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd

from loadtests.analysis import document, plots
from loadtests.analysis.document import text
from loadtests.analysis.linkplots import link_delay, queue
from loadtests.analysis.pictures import Gallery
from loadtests.analysis.read import Run, SeveralRuns, open_run
from loadtests.analysis.stats import COUNTS, presentable, response_percentiles, sent, summarise, waited
from loadtests.analysis.sweeps import heat_map, sweep
from loadtests.analysis.verdict import Verdict, judge
from loadtests.errors import ExitCode
from loadtests.percentiles import SHARES, is_known, least_count


def write_report(run_directory: Path, *, with_disturbed: bool = False) -> Path:
    """Write `report.html` into the run directory; returns its path."""
    run = open_run(run_directory, with_disturbed=with_disturbed)
    report = run_directory / "report.html"
    report.write_text(page(run), encoding="utf-8")
    return report


def write_side_by_side(runs: Sequence[Run], file: Path) -> None:
    """Write one page of several runs, a curve for each, to `file`."""
    together = SeveralRuns(runs)
    summary = summarise(together)
    parts = [f"<h1>{text(', '.join(together.names))}</h1>"]
    for run, name in zip(runs, together.names, strict=True):
        described = str(run.manifest.scenario.get("description", ""))
        parts += [f"<h2>{text(name)}</h2><p>{text(described)}</p>", _verdict(judge(run))]
        parts.append(f"<p>{text(circumstances(run))}</p>")
    parts += ["<h2>Response times, in ms</h2>" + _times(together, summary)]
    parts += ["<h2>What became of the messages</h2>" + _outcomes(together, summary)]
    parts += ["<h2>Figures</h2>" + _figures(together, plots.SIDE_BY_SIDE)]
    for run, name in zip(runs, together.names, strict=True):
        parts.append(f"<h2>Was the link of {text(name)} really like that?</h2>" + document.links(run))
        parts.append(f"<h2>To reproduce {text(name)}</h2>" + _how(run))
    file.write_text(document.page("chatlab: runs side by side", "".join(parts)), encoding="utf-8")


def page(run: Run) -> str:
    """The report as HTML; all that came from a file is escaped."""
    verdict, summary = judge(run), summarise(run)
    described = str(run.manifest.scenario.get("description", ""))
    figures = (*plots.ALL[:3], sweep, heat_map, *plots.ALL[3:-1], queue, link_delay, plots.cpu)
    parts = [
        f"<h1>{text(run.path.resolve().name)}</h1><p>{text(described)}</p>",
        _verdict(verdict),
        f"<p>{' '.join(text(sentence) for sentence in answer(run, summary))}</p>",
        f"<p>{text(circumstances(run))}</p>",
        "<h2>Response times, in ms</h2>" + _times(run, summary),
        "<h2>What became of the messages</h2>" + _outcomes(run, summary),
        "<h2>Figures</h2>" + _figures(run, figures),
        "<h2>Was the link really like that?</h2>" + document.links(run),
        "<h2>To reproduce it</h2>" + _how(run),
    ]
    return document.page(f"chatlab: {run.path.resolve().name}", "".join(parts))


def answer(run: Run, summary: pd.DataFrame) -> list[str]:
    """The answer in up to three sentences, made from the numbers."""
    if not summary["average_ms"].notna().any():
        return ["No message was answered after the warm-up."]
    typical = summary.dropna(subset="p50_ms").sort_values("p50_ms")
    quick, slow = typical.iloc[0], typical.iloc[-1]
    sentences = [f"Half of the messages took up to {_ms(quick['p50_ms'])} with {quick['variant']}"]
    if math.isinf(quick["p50_ms"]):
        where = quick["variant"] if len(typical) == 1 else "every variant"
        sentences = [f"With {where} at least half of the messages were never answered"]
    elif math.isinf(slow["p50_ms"]):
        sentences[0] += f"; with {slow['variant']} at least half of them were never answered"
    elif len(typical) > 1:
        sentences[0] += f", and up to {_ms(slow['p50_ms'])} with {slow['variant']}"
    sentences[0] += "."
    told = summary[[is_known(count, 0.95) for count in waited(run, summary)]]
    stretch = (told["p95_ms"] / told["p50_ms"]).dropna().sort_values()
    if not stretch.empty:
        worst = told.loc[stretch.index[-1]]
        sentences.append(
            f"The tail is longest with {worst['variant']}: at least one message in twenty was never answered."
            if math.isinf(worst["p95_ms"])
            else f"The tail is longest with {worst['variant']}: one message in twenty took longer than "
            f"{_ms(worst['p95_ms'])}, {stretch.iloc[-1]:.1f} times the median."
        )
    lost, of = int(summary["lost"].sum()), int(sent(run, summary).sum())
    sentences.append(f"Of {of:,} messages {lost or 'none'} {'were' if lost > 1 else 'was'} lost.")
    return sentences


def _figures(run: Run, figures: Iterable[Callable[[Run], Gallery]]) -> str:
    """Those that have something to show."""
    galleries = [draw(run) for draw in figures]
    return "".join(gallery._repr_html_() for gallery in galleries if gallery.pictures)


def _names(run: Run, summary: pd.DataFrame) -> list[str]:
    """What the rows of the summary are called."""
    keys = run.conditions if isinstance(run, SeveralRuns) else ["variant"]
    return [", ".join(map(str, row)) for row in summary[keys].itertuples(index=False)]


def _verdict(verdict: Verdict) -> str:
    """Trusted or why not, each time that it was seen, and all thresholds."""
    items = [f"<li>{text(str(check))}</li>" for check in verdict.checks]
    for doubt in verdict.doubts:
        details = "".join(f"<li>{text(detail)}</li>" for detail in doubt.details)
        seen = f"<details><summary>each time</summary><ul>{details}</ul></details>" if len(doubt.details) > 1 else ""
        items.append(f"<li>{text(str(doubt))}{seen}</li>")
    kind = "verdict bad" if verdict.exit_code != ExitCode.PASSED else "verdict"
    listed = f"<ul>{''.join(items)}</ul>" if items else ""
    return f'<div class="{kind}"><strong>{text(verdict.headline)}</strong>{listed}</div>'


def circumstances(run: Run) -> str:
    """Date, duration, users and rates."""
    manifest = run.manifest
    scenario = manifest.scenario
    users = scenario.get("users", {"BroadcastUser": 10})
    stages = scenario.get("stages", [])
    duration = " + ".join(str(stage.get("duration", "?")) for stage in stages) or "12s"
    people = ", ".join(f"{count} {name}" for name, count in users.items())
    steps = [str(stage.get("users", "?")) for stage in stages]
    if {*steps} - {str(sum(map(int, users.values())))}:  # then the scenario's users are the mix of whoever is there
        mix = " : ".join(users) + (f" = {' : '.join(map(str, users.values()))}" if len(users) > 1 else "")
        people = f"{', then '.join(step for step, _ in groupby(steps))} users ({mix})"
    messages = scenario.get("messages", {})
    ramp = f", {messages['ramp_to']} at the end," if "ramp_to" in messages else ""
    talk = f"{messages.get('rate', '1/s')}{ramp} for each user who talks"
    if "think_time" in messages:
        talk = f"who talks waits {messages['think_time']} after each answer (closed workload)"
    if _is_varied(run, "stages"):
        duration = "varied length"
    if _is_varied(run, "users") or _is_varied(run, "stages"):
        people = "varied users"
    if any(_is_varied(run, f"messages.{key}") for key in ("rate", "ramp_to", "think_time")):
        talk = "a varied rate for each user who talks"
    clock = " In virtual time, where computing takes no time: these are the times of network and protocol alone."
    started = f"{manifest.started_utc[:16].replace('T', ' ')} UTC" if manifest.started_utc else "date unknown"
    return (
        f"{started}: {len(run.trials)} trials of {duration}, state {manifest.state}; "
        f"{people}; {talk}; link backend: "
        f"{', '.join(sorted({trial.backend for trial in manifest.trials}))}."
        + (clock if manifest.clock == "virtual" else "")
    )


def _is_varied(run: Run, key: str) -> bool:
    """Whether trials differ in what this key says: in itself, in one above it or in one within it."""
    return any(f"{one}.".startswith(f"{key}.") or f"{key}.".startswith(f"{one}.") for one in run.manifest.varied)


def _times(run: Run, summary: pd.DataFrame) -> str:
    messages = run.measured("response_time_ms", "outcome")
    known = pd.DataFrame(response_percentiles(messages, run.conditions, SHARES)).reset_index()
    shares = summary[run.conditions].merge(known, on=run.conditions, how="left")  # a variant may have sent nothing
    answers = waited(run, summary)
    columns: dict[str, Iterable[str]] = {
        "variant": _names(run, summary),
        "messages": [f"{count:,}" for count in summary["count"]],
        "mean": map(_number, summary["average_ms"]),
        "deviation": map(_number, summary["stddev_ms"]),
        "smallest": map(_number, summary["minimum_ms"]),
    }
    for name, share in SHARES.items():
        columns[name] = [
            _number(value) if is_known(count, share) else "too few"
            for value, count in zip(shares[name], answers, strict=True)
        ]
    columns["largest"] = map(_number, summary["maximum_ms"])
    columns["jitter"] = map(_number, summary["jitter_ms"])
    note = (
        "<p class=few>From the intended time of each message to the arrival of its echo; warm-up left out. A lost "
        f"message counts as infinite (∞). Too few: p95 takes {least_count(0.95):,} messages, p99 "
        f"{least_count(0.99):,}, p99.9 {least_count(0.999):,}, so that ten are beyond it. Jitter: RFC 3550.</p>"
    )
    return document.table(list(columns), list(zip(*columns.values(), strict=True))) + note


def _outcomes(run: Run, summary: pd.DataFrame) -> str:
    shown = presentable(run, summary)
    names = [name for name in COUNTS if name in shown]
    rows = [
        [label, *(f"{row[name]:,}" for name in names)]
        for label, (_, row) in zip(_names(run, summary), shown.iterrows(), strict=True)
    ]
    note = (
        "<p class=few>Retransmissions: segments of both ends. They, copies and files are counted in the warm-up too. "
        "Disturbed: the machine stalled meanwhile, so the times of these messages are left out.</p>"
    )
    return document.table(["variant", *(name.replace("_", " ") for name in names)], rows) + note


def _how(run: Run) -> str:
    manifest = run.manifest
    seeds = ", ".join(str(seed) for seed in sorted({trial.seed for trial in manifest.trials}))
    versions = ", ".join(f"{name} {number}" for name, number in manifest.versions.items())
    command = shlex.join(
        ["chatlab", "run", manifest.scenario_file, *(manifest.options or ["--backend", manifest.backend])]
    )
    return (
        f"<pre>{text(command)}</pre><p>Random seed of each trial: {text(seeds)}. Versions: {text(versions)}. Kernel "
        f"{text(manifest.kernel)}, {manifest.cores} cores. The scenario is in "
        "<code>run.json</code>, each message in <code>messages.csv</code>.</p>"
    )


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:,.1f}"


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"
