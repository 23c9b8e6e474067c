"""Files under load: a whole run in which users send each other files."""

from pathlib import Path

import pandas as pd
import pytest
from chat_helpers import server_process
from run_helpers import assert_finished, chatlab

pytestmark = pytest.mark.realtime("runs")

#: Whoever leaves while a file is on its way to it, for 200 ms, would make that file fail.
SCENARIO = """
link: {rtt: 400ms}
users: {BroadcastUser: 1, ListeningUser: 8, FileUser: 3}
messages: {rate: 5/s}
files: {size: 10KiB, every: 400ms}
stages: [{users: 12, spawn_rate: 100/s, duration: 4s}]
warmup: 1s
thresholds: ["files_failed == 0", "files >= 3"]
"""


def test_users_send_each_other_files(tmp_path: Path) -> None:
    scenario = tmp_path / "files.yaml"
    scenario.write_text(SCENARIO)
    done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    assert "passed: files_failed == 0" in done.stdout
    (run,) = (tmp_path / "results").iterdir()
    files = pd.read_csv(run / "files.csv")
    assert set(files["outcome"]) == {"done"}
    assert not (files["sender"] == files["receiver"]).any()
    # Three users, ten files each; on a busy machine they come late.
    assert 3 <= len(files) <= 33
    assert (files["goodput_bps"] > 0).all()
    row = pd.read_csv(run / "summary.csv").iloc[0]
    assert (row["files"], row["files_failed"]) == (len(files), 0)
    undisturbed = files.loc[files["disturbed"] == 0, "goodput_bps"]
    assert row["file_goodput_bps"] == pytest.approx(undisturbed.median(), nan_ok=True)


def test_files_keep_their_own_time_in_a_closed_workload(tmp_path: Path) -> None:
    scenario = tmp_path / "files.yaml"
    with server_process() as server:
        load = "users: {FileUser: 2}\nmessages: {think_time: 10ms}\nfiles: {size: 1kB, every: 1s}"
        rest = "stages: [{users: 2, duration: 4s}]\nwarmup: 0s"
        scenario.write_text(f"server: 127.0.0.1:{server.address[1]}\n{load}\n{rest}\n")
        done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    files = pd.read_csv(next((tmp_path / "results").iterdir()) / "files.csv")
    for _, mine in files.groupby("sender"):
        assert 2 <= len(mine) <= 5
        assert mine["started_s"].diff().dropna().tolist() == pytest.approx([1.0] * (len(mine) - 1))


def test_a_wrong_interval_is_one_sentence(tmp_path: Path) -> None:
    scenario = tmp_path / "files.yaml"
    scenario.write_text("users: {FileUser: 1}\nfiles: {every: 0s}")
    done = chatlab("check", scenario)
    assert done.returncode == 2
    assert "every must be above 0s" in done.stderr
