"""What is left of a run that was cut short, and how it is gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from run_helpers import SHORT, StartedRun, assert_finished, chatlab, children_named

pytestmark = pytest.mark.realtime("runs")


def test_ctrl_c_keeps_and_marks_what_there_is(tmp_path: Path) -> None:
    run = StartedRun(tmp_path)
    os.killpg(run.process.pid, signal.SIGINT)
    code, printed = run.end()
    assert code == 130, printed
    assert "Traceback" not in printed
    assert run.info["state"] == "interrupted"
    messages = pd.read_csv(next(run.results.iterdir()) / "messages.csv")
    assert (messages["outcome"] == "echoed").sum() > 10
    assert len(pd.read_csv(next(run.results.iterdir()) / "clients.csv")), "users leave in order"


def test_a_run_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text(SHORT.replace("4s", "2s"))
    results = tmp_path / "results"
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--no-report", "--results", str(results)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    assert any("trial 2 of 2" in line for line in run.stdout)
    run.kill()  # in the middle of the second trial
    run.communicate()
    (directory,) = results.iterdir()
    first = pd.read_csv(directory / "messages.csv", dtype=str)
    done = chatlab("run", "--no-report", "--resume", directory)
    assert_finished(done.returncode, done.stdout + done.stderr)
    assert "trial 1 of" not in done.stdout
    messages = pd.read_csv(directory / "messages.csv", dtype=str)
    assert messages[messages["trial"] == "1"].equals(first[first["trial"] == "1"]), "finished trials stay as they are"
    assert set(messages["trial"]) == {"1", "2"}
    info = json.loads((directory / "run.json").read_text())
    assert [trial["number"] for trial in info["trials"]] == [1, 2]
    assert info["state"] == "finished"


def test_a_server_that_dies_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    run = StartedRun(tmp_path)
    (server,) = children_named(psutil.Process(run.process.pid), "chat", "serve")
    server.kill()
    code, printed = run.end()
    assert code == 2
    assert "the chat server ended by itself" in printed
    assert str(run.info["state"]).startswith("failed: the chat server ended")
    assert (next(run.results.iterdir()) / "messages.csv").exists()
