"""What is left of a run that was cut short, and how it is gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from run_helpers import StartedRun, assert_finished, children_named, wait_until_sent

from loadtests.link.backends import ferry

pytestmark = pytest.mark.realtime("runs")


@pytest.mark.parametrize("tell", [os.kill, os.killpg])
def test_ctrl_c_keeps_and_marks_what_there_is(tmp_path: Path, tell: Callable[[int, int], None]) -> None:
    """Whether the first process is told, as by a script, or all of them, as by `timeout`."""
    run = StartedRun(tmp_path)
    tell(run.process.pid, signal.SIGINT)
    code, printed = run.end()
    assert code == 130, printed
    assert "Traceback" not in printed
    assert run.info["state"] == "interrupted"
    messages = pd.read_csv(next(run.results.iterdir()) / "messages.csv")
    assert (messages["outcome"] == "echoed").sum() > 10
    assert len(pd.read_csv(next(run.results.iterdir()) / "clients.csv")), "users leave in order"


REPEATED = """
link: {rtt: 100ms}
users: {BroadcastUser: 4}
messages: {rate: 10/s, arrival: constant}
stages: [{users: 4, spawn_rate: 100/s, duration: 2s}]
warmup: 0s
vary:
  connections: [single, redundant]
"""
SENT, SENT_MEANWHILE = 8, 40  # of the 80 of a trial


def test_a_disturbed_trial_is_repeated_and_a_run_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    """The emulator stands still in the first trial; the run is killed while that trial is repeated."""
    scenario, results = tmp_path / "s.yaml", tmp_path / "results"
    scenario.write_text(REPEATED)
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--no-report", "--results", str(results)]
    with (tmp_path / "printed").open("w") as printed:
        run = subprocess.Popen(
            [*command, "--backend", "emulator", "--repeat", "1"], stdout=printed, text=True, start_new_session=True
        )
    if wait_until_sent(results, 1, SENT, run):  # or it was rejected before, by what the machine did
        (emulator,) = children_named(psutil.Process(run.pid), ferry.__name__)
        emulator.suspend()
        wait_until_sent(results, 1, SENT + SENT_MEANWHILE, run)
        emulator.resume()
    assert wait_until_sent(results, 3, SENT, run), (tmp_path / "printed").read_text()
    run.kill()
    run.wait()
    (directory,) = results.iterdir()
    info = json.loads((directory / "run.json").read_text())
    assert info["state"] == "running", "nobody could say that it was killed"
    rejected = info["trials"][0]
    assert (rejected["number"], rejected["state"]) == (1, "rejected")
    assert re.search("of its messages were disturbed|while the machine stalled", rejected["reason"])
    assert f"trial 1, single: again later: {rejected['reason']}" in (tmp_path / "printed").read_text()
    assert pd.read_csv(directory / "rejected" / "trial-001" / "link.csv")["trial"].eq(1).all()
    kept = {str(trial["number"]) for trial in info["trials"] if trial["state"] == "finished"}
    first = messages_of(directory, kept)
    # With its own --repeat: without a repetition the rejected trial would count as it is.
    resumed = [sys.executable, "-m", "loadtests", "run", "--no-report", "--resume", str(directory)]
    done = subprocess.run(resumed, capture_output=True, text=True, timeout=110)
    assert_finished(done.returncode, done.stdout + done.stderr)
    info_after = json.loads((directory / "run.json").read_text())
    assert info_after["state"] == "finished"
    assert info_after["trials"][: len(info["trials"])] == info["trials"], "what has ended is neither lost nor run again"
    finished = [trial for trial in info_after["trials"] if trial["state"] == "finished"]
    assert sorted(trial["name"] for trial in finished) == ["redundant", "single"]
    messages = pd.read_csv(directory / "messages.csv", dtype=str)
    assert set(messages["trial"]) == {str(trial["number"]) for trial in finished}, "the rejected are in no table"
    assert messages_of(directory, kept) == first, "finished trials stay as they are"


def messages_of(run: Path, trials: set[str]) -> list[str]:
    """The rows of these trials; there is no table before one has finished."""
    table = run / "messages.csv"
    return [line for line in table.read_text().splitlines() if line.split(",")[0] in trials] if trials else []


def test_a_server_that_dies_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    run = StartedRun(tmp_path)
    (server,) = children_named(psutil.Process(run.process.pid), "chat", "serve")
    server.kill()
    code, printed = run.end()
    assert code == 2
    assert "the chat server ended by itself" in printed
    assert str(run.info["state"]).startswith("failed: the chat server ended")
    messages, clients = (pd.read_csv(next(run.results.iterdir()) / name) for name in ("messages.csv", "clients.csv"))
    assert len(messages)
    assert set(messages["user"]) <= set(clients["user"]), "all leave in order, though nobody answers"
