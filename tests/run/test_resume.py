"""Going on with a run that was cut short, without running anything: what it is gone on with."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from loadtests.config.yamlfile import Document
from loadtests.run import trials
from loadtests.run.directory import RunDirectory
from loadtests.run.manifest import Manifest, TrialRecord
from loadtests.scenario.matrix import Trial, plan

SIX = Document.parse("repetitions: 6\nserver: 127.0.0.1:1\n", "x.yaml")


def run_of(folder: Path, *states: str, document: Document = SIX, options: tuple[str, ...] = ()) -> RunDirectory:
    """A run that was cut short after trials that ended like this."""
    run = RunDirectory.create(folder, document, "auto", None, [], captures=False, options=options)
    run.manifest.trials += [record(trial, state) for trial, state in zip(plan(document), states, strict=False)]
    run.manifest.state = "interrupted"
    run.save()
    return run


def record(trial: Trial, state: str) -> TrialRecord:
    return TrialRecord(
        number=trial.number, name=trial.name, repetition=trial.repetition, variant=trial.variant, state=state
    )


def test_no_two_trials_have_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial 2 was rejected, so it has number 7 now; trial 4 is rejected afterwards."""

    def rejected_once(run: RunDirectory, trial: Trial, *_: object, may_repeat: bool) -> SimpleNamespace:
        state = "rejected" if may_repeat and trial.number == 4 else "finished"
        return SimpleNamespace(run=lambda: run.manifest.trials.append(record(trial, state)))

    monkeypatch.setattr(trials, "_TrialRun", rejected_once)
    run = RunDirectory.reopen(run_of(tmp_path, "finished", "rejected", "finished").path, captures=False)
    trials.run_trials(run, run.unfinished(plan(SIX)), "auto", SimpleNamespace(), 2)  # type: ignore[arg-type]
    numbers = [trial.number for trial in Manifest.read(run.path).trials]
    assert numbers == [1, 2, 3, 7, 4, 5, 6, 8]
