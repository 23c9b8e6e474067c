"""The answers of the notebooks, each a question about a run; where the run cannot answer, which scenario would."""

from dataclasses import dataclass

import pandas as pd

from loadtests.analysis import comparison_text
from loadtests.analysis.compare import compare_within
from loadtests.analysis.document import prose, text
from loadtests.analysis.read import Run
from loadtests.analysis.report import answer
from loadtests.analysis.stats import link_report, second_connection, sent, summarise


@dataclass(frozen=True)
class Answer:
    """Sentences under the question they answer."""

    question: str
    sentences: list[str]

    def _repr_html_(self) -> str:
        return f"<h2>{text(self.question)}</h2><p>{prose(' '.join(self.sentences))}</p>"

    def __str__(self) -> str:
        return f"{self.question}\n{' '.join(self.sentences)}"


def response_time(run: Run) -> Answer:
    """From the intended time to the echo."""
    return Answer("How long does a message take?", answer(run, summarise(run)))


def loss(run: Run) -> Answer:
    """What was lost, and the retransmissions of the rest."""
    rows = summarise(run)
    sentences = [
        f"{row['variant']}: {row['lost']} of {of:,} lost, {row['retransmissions']:,} retransmissions."
        for (_, row), of in zip(rows.iterrows(), sent(run, rows), strict=True)
    ]
    if not rows["retransmissions"].any():
        sentences.append("TCP retransmitted nothing; `chatlab run loss-sweep` shows what loss costs.")
    return Answer("What was lost, and what did it cost to bring the rest?", sentences)


def queues(run: Run) -> Answer:
    """How far the round-trip time rose above its smallest."""
    tcp = run.table("tcp", ["side", "rtt_ms", "min_rtt_ms"])
    tcp = tcp[tcp["side"] == "client"]
    waited = (tcp["rtt_ms"] - tcp["min_rtt_ms"]).groupby(tcp["variant"], observed=True).quantile(0.95)
    sentences = [f"{name}: RTT rose up to {ms:.1f} ms above its smallest (p95)." for name, ms in waited.items()]
    if not any(key.endswith(("rate", "queue")) for key in run.conditions):
        sentences.append("This run varies no bandwidth; `chatlab run bandwidth-sweep` does.")
    return Answer("Did a queue build up, and where?", sentences)


def second_connection_gain(run: Run) -> Answer:
    """Percentiles of the other modes over those of `single`."""
    ratios = second_connection(run)
    if ratios.empty:
        sentences = ["This run does not compare connection modes with `single`; `chatlab run demo` does."]
    else:
        others = [key for key in run.conditions if key != "connections"]
        sentences = []
        for _, row in ratios.iterrows():
            known = [f"{name} × {row[f'{name} ratio']:.2f}" for name in ("p50", "p95") if row[f"{name} ratio"] >= 0]
            told = f"{', '.join(known)} of single" if known else "too few messages were answered to tell"
            sentences.append(f"{' '.join(str(row[key]) for key in [*others, 'connections'])}: {told}.")
    return Answer("Did the second connection help?", sentences)


def files(run: Run) -> Answer:
    """Goodput of those that arrived, and how many did not."""
    rows = run.table("files")
    if rows.empty:
        sentences = ["Nobody sent a file; a scenario with `users: {FileUser: 2, BroadcastUser: 8}` would."]
    else:
        summary = summarise(run)
        sentences = [
            f"{row['variant']}: {row['files']} of {row['files'] + row['files_failed']} arrived"
            + (f", at a median of {row['file_goodput_bps'] / 1e6:.2f} Mbit/s." if row["file_goodput_bps"] > 0 else ".")
            for _, row in summary[summary["files"] + summary["files_failed"] > 0].iterrows()
        ]
        if len(run.undisturbed(rows)) < len(rows):
            sentences.append("The speed is of those that the machine did not disturb.")
    return Answer("How fast were files, and did any fail?", sentences)


def comparison(run: Run) -> Answer:
    """What `chatlab compare` says of the last varied key."""
    if run.conditions == ["variant"]:
        sentences = ["This run has one variant; `chatlab run demo --set repetitions=6` has several, often enough."]
    else:
        found = compare_within(run, run.conditions[-1])
        told = [f"{one.name}: {one.metric} is {one.verdict}." for one in found if one.verdict != "too few"]
        sentences = told or [f"Too few to tell: {found[0].note}. `--set repetitions=6` makes pairs." if found else ""]
    return Answer("Is one variant different from another, and does it matter?", sentences)


def comparison_table(run: Run) -> pd.DataFrame:
    """What `chatlab compare --by` prints for the last varied key; empty if the run varied none."""
    found = [] if run.conditions == ["variant"] else compare_within(run, run.conditions[-1])
    return pd.DataFrame(comparison_text.rows(found), columns=list(comparison_text.HEADINGS))


def link_quality(run: Run) -> Answer:
    """How many of the measured figures lie within their tolerance."""
    rows = run.table("link")
    measured = rows[rows["when"] != "change"]
    if link_report(run).empty:
        sentences = ["This run used no link of its own; any scenario with `link:` does."]
    else:
        within = int(measured["within"].astype(bool).sum())
        sentences = [f"{within} of {len(measured)} figures were within their tolerance, before and after the load."]
    return Answer("Did the link do what was asked of it?", sentences)
