"""Which trials are repeated, and which attempt counts, without running anything."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from loadtests.config.yamlfile import Document
from loadtests.run import trials
from loadtests.run.directory import RunDirectory
from loadtests.run.manifest import MachineFacts, Manifest, Start, TrialRecord
from loadtests.samples import TABLES
from loadtests.scenario.matrix import Trial, plan

THREE = Document.parse("repetitions: 3\nserver: 127.0.0.1:1\n", "x.yaml")
#: The link was off before the load, while the machine stalled.
OFF = None


@pytest.mark.parametrize(
    ("shares", "repeat", "counting"),
    [
        pytest.param([0, 0.2, 0.1], 2, [1, 2, 3], id="a fifth may be disturbed"),
        pytest.param([0, 0.5, 0, 0.1], 2, [1, 3, 4], id="what is disturbed once is run again, last"),
        pytest.param([0.4, 0.5, 0, 0.3, 0.1, 0.1], 2, [3, 5, 6], id="a repetition may be repeated if it was better"),
        pytest.param([0.4, 0.5, 0.6, 0.35], 2, [2, 3, 4], id="not if it was no better, nor are the others: 1"),
        pytest.param([0.4, 0.5, 0.6, 0.45], 2, [1, 2, 3], id="not if it was no better, nor are the others: 2"),
        pytest.param([0.9, 0, 0, 0.6, 0.4], 2, [2, 3, 5], id="the last attempt counts"),
        pytest.param([0.9, 0, 0, 0.6, 0.7], 2, [2, 3, 4], id="unless it was the worse one"),
        pytest.param([0.9, 0, 0, 0.6], 1, [2, 3, 4], id="the first repetition is the last"),
        pytest.param([0.9, 0, 0.8], 0, [1, 2, 3], id="nothing is repeated"),
        pytest.param([OFF, 0, OFF, OFF, 0.7, 0.9], 2, [2, 5, 6], id="without messages no attempt can count"),
    ],
)
def test_a_trial_is_repeated_as_long_as_it_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: list[float | None], repeat: int, counting: list[int]
) -> None:
    """`shares`: of the messages of one attempt after another; `counting`: the numbers of those that do in the end."""
    left = iter(shares)

    def attempt(run: RunDirectory, trial: Trial, *_: object, may_repeat: bool) -> SimpleNamespace:
        def measure() -> None:
            share = next(left)
            assert share is not OFF or may_repeat, "the last attempt goes on"
            record = TrialRecord(number=trial.number, name=trial.name, repetition=trial.repetition, state="finished")
            if share is OFF or share > 0.2:
                record.state, record.reason = "rejected", "it was disturbed"
            if share is not OFF:
                record.start, record.machine = Start(1, 1), MachineFacts(disturbed_share=share)
            run.raw(trial).mkdir()
            run.finish(record, {"files": pd.DataFrame({"sender": [1]}, columns=list(TABLES["files"]))})

        return SimpleNamespace(run=measure)

    monkeypatch.setattr(trials, "_TrialRun", attempt)
    run = RunDirectory.create(tmp_path, THREE, "auto", None, [], captures=False)
    trials.run_trials(run, plan(THREE), "auto", SimpleNamespace(), repeat)  # type: ignore[arg-type]
    assert list(left) == [], "all of these are run"
    after = Manifest.read(run.path)
    finished = {trial.number: trial for trial in after.trials if trial.state == "finished"}
    assert sorted(finished) == counting
    assert sorted(trial.repetition for trial in finished.values()) == [1, 2, 3]
    assert sorted(pd.read_csv(run.path / "files.csv")["trial"]) == counting
    kept = {int(folder.name.removeprefix("trial-")) for folder in (run.path / "rejected").glob("*")}
    assert kept == {trial.number for trial in after.trials} - {*counting}, "the others stay beside them"


def test_rows_that_were_to_count_when_the_run_was_killed_do_not_count_twice(tmp_path: Path) -> None:
    """Killed after they were added to those of the run, and before `run.json` said so."""
    run = RunDirectory.create(tmp_path, THREE, "auto", None, [], captures=False)
    trial = plan(THREE)[0]
    run.raw(trial).mkdir()
    record = TrialRecord(number=1, name=trial.name, state="rejected", start=Start(1, 1))
    run.finish(record, {"files": pd.DataFrame({"sender": [1]}, columns=list(TABLES["files"]))})
    (run.path / "files.csv").write_bytes((run.path / "rejected" / "trial-001" / "files.csv").read_bytes())
    run = RunDirectory.reopen(run.path, captures=False)
    (record,) = run.rejected(trial)
    run.accept(record)
    assert pd.read_csv(run.path / "files.csv")["trial"].tolist() == [1]
