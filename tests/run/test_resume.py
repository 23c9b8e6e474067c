"""Going on with a run that was cut short, without running anything: what it is gone on with."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from run_helpers import refused

from loadtests.cli import main
from loadtests.commands import report
from loadtests.config.yamlfile import Document
from loadtests.errors import ExitCode
from loadtests.run import capture, trials
from loadtests.run.directory import RunDirectory
from loadtests.run.manifest import Manifest, TrialRecord
from loadtests.run.trials import Watch
from loadtests.samples import TABLES
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


def test_a_run_that_another_process_has_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "finished", "running")
    before = (run.path / "run.json").read_bytes()
    elsewhere = os.open(run.path, os.O_RDONLY)
    fcntl.flock(elsewhere, fcntl.LOCK_EX)
    said = refused(capsys, "run", "--resume", run.path)
    assert said == f"chatlab: {run.path}: the run still goes on, in another process\n"
    assert (run.path / "run.json").read_bytes() == before
    os.close(elsewhere)


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Goes on with a run, with a harness that only notes what it is to run."""

    def resume(run: RunDirectory, *options: str) -> dict[str, Any]:
        noted: dict[str, Any] = {}

        def note(run: RunDirectory, left: list[Trial], _backend: str, _watch: Watch, repeat: int) -> ExitCode:
            noted.update(trials=[trial.number for trial in left], repeat=repeat, captures=run.captures)
            return ExitCode.PASSED

        monkeypatch.setattr(trials, "run_trials", note)
        monkeypatch.setattr(report, "finish", lambda *_, **__: 0)
        monkeypatch.setattr(capture, "check_tool", lambda: None)
        assert main(["run", "--resume", str(run.path), *options]) == 0
        return noted

    return resume


def test_what_a_run_was_made_with_goes_on(tmp_path: Path, resumed: Callable[..., dict[str, Any]]) -> None:
    made_with = ("--set", "seed=5", "--trial", "2", "--repeat", "7", "--capture", "--processes", "2")
    run = run_of(tmp_path, options=made_with)
    assert resumed(run) == {"trials": [2], "repeat": 7, "captures": True}
    assert resumed(run, "--repeat", "0")["repeat"] == 0
    run = run_of(tmp_path, "finished", "failed")
    assert resumed(run) == {"trials": [2, 3, 4, 5, 6], "repeat": 2, "captures": False}


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        (["--trial", "1", "--set", "seed=5"], "--trial, --set"),
        (["--backend", "auto"], "--backend"),
        (["--clock", "real", "--interface", "lo", "--stamps", "wire"], "--clock, --interface, --stamps"),
        (["--results", "elsewhere"], "--results"),
        (["--processes", "2"], "--processes"),
    ],
)
def test_what_a_run_has_already_is_not_given_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], left_out: str
) -> None:
    said = refused(capsys, "run", "--resume", run_of(tmp_path).path, *options)
    assert said == f"chatlab: run --resume: leave out {left_out}: the run has its own\n"


def test_options_that_nobody_can_have_given_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "run", "--resume", run_of(tmp_path, options=("--trial", "two")).path)
    assert "run.json: options: argument --trial: expected a number from 1 up, got 'two'" in said
    assert said.count("\n") == 1


def test_a_run_of_which_nothing_is_left_is_finished(tmp_path: Path, resumed: Callable[..., dict[str, Any]]) -> None:
    """Killed after its last trial, it says that it is running."""
    run = run_of(tmp_path, *["finished"] * 6)
    assert resumed(run) == {}
    assert Manifest.read(run.path).state == "finished"


@pytest.mark.parametrize("left", ["", "trial,us"])
def test_a_table_without_a_whole_header_begins_anew(tmp_path: Path, left: str) -> None:
    """As a kill, or a full disk, leaves it."""
    run = run_of(tmp_path)
    (run.path / "files.csv").write_text(left)
    run = RunDirectory.reopen(run.path, captures=False)
    measure(run, plan(SIX)[0], "finished")
    assert (run.path / "files.csv").read_text().startswith("trial,sender,")
    assert pd.read_csv(run.path / "files.csv")["trial"].tolist() == [1]


def test_half_a_line_is_no_row(tmp_path: Path) -> None:
    """What is left of a line of trial 12 may look like one of trial 1."""
    run = run_of(tmp_path)
    measure(run, plan(SIX)[0], "finished")
    whole = (run.path / "files.csv").read_text()
    (run.path / "files.csv").write_text(f"{whole}1")
    RunDirectory.reopen(run.path, captures=False)
    assert (run.path / "files.csv").read_text() == whole


def measure(run: RunDirectory, trial: Trial, state: str) -> None:
    """The end of a trial of one file."""
    run.raw(trial).mkdir()
    run.finish(record(trial, state), {"files": pd.DataFrame({"sender": [1]}, columns=list(TABLES["files"]))})


def test_rows_of_a_rejected_trial_that_no_manifest_knows_are_dropped(tmp_path: Path) -> None:
    """Killed after they were written, and before `run.json` was, the trial runs again under its number."""
    run = run_of(tmp_path)
    (trial, *_), before = plan(SIX), (run.path / "run.json").read_text()
    measure(run, trial, "rejected")
    (run.path / "run.json").write_text(before)
    run = RunDirectory.reopen(run.path, captures=False)
    measure(run, trial, "rejected")
    assert len(pd.read_csv(run.path / "rejected" / "trial-001" / "files.csv")) == 1
    assert (RunDirectory.reopen(run.path, captures=False).path / "rejected" / "trial-001").exists()
