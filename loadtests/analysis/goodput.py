"""Goodput of a trial: what was answered each second of a time that its scenario says."""

import pandas as pd

from loadtests.analysis.read import Run
from loadtests.config.yamlfile import Document
from loadtests.run.manifest import TrialRecord
from loadtests.scenario.scenario import Scenario

#: Keys of a scenario that say when the warm-up is over, and the load.
_KEYS = ("warmup", "stages")


def goodput_per_s(run: Run) -> "pd.Series[float]":
    """Trial → answers that came from the end of its warm-up to the end of its load, divided by that time.

    An answer counts when it comes, whenever its message was due: what a full queue still holds when the load ends has
    not passed the link meanwhile. Answers that the machine disturbed count too. A trial that was cut short ended when
    its last message was due; NaN if nothing was due after the warm-up.

    Raises ConfigError: `run.json` does not say how long warm-up and load were.
    """
    rows = run.rows("messages", ["intended_s", "echoed_s"])
    ends_s = rows.groupby("trial")["intended_s"].max()
    trials = [trial for trial in run.manifest.trials if trial.number in ends_s.index]
    planned = [planned_s(run, trial) for trial in trials]
    begins_s = pd.Series([begin_s for begin_s, _ in planned], [trial.number for trial in trials], dtype=float)
    for trial, (_, end_s) in zip(trials, planned, strict=True):
        ends_s[trial.number] = end_s if trial.state == "finished" else min(end_s, ends_s[trial.number])
    is_meanwhile = (rows["echoed_s"] >= rows["trial"].map(begins_s)) & (rows["echoed_s"] < rows["trial"].map(ends_s))
    length_s = ends_s - begins_s
    return (is_meanwhile.groupby(rows["trial"]).sum() / length_s).where(length_s > 0)


def planned_s(run: Run, trial: TrialRecord) -> tuple[float, float]:
    """When the warm-up of the trial was to end, and its load; seconds since the start of the load.

    Raises ConfigError: what `run.json` says of it is no scenario.
    """
    file = str(run.path / "run.json")
    told = {key: value for key, value in run.manifest.scenario.items() if key in _KEYS}
    document = Document(file, told, {(): file}, "")
    for key, label in trial.variant.items():
        if key.partition(".")[0] in _KEYS:
            document = document.replaced(key, Document.parse(label, file).data, file)
    scenario = document.convert(Scenario)
    return scenario.warmup, scenario.duration_s
