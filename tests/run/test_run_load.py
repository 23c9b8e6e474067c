"""The load that a run makes: open and closed workloads, a server that stands still, who hears whom."""

import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from chat_helpers import server_process
from run_helpers import FROZEN, StartedRun, assert_finished, chatlab, children_named

from loadtests.analysis.read import Run

pytestmark = pytest.mark.realtime("runs")


def test_a_frozen_server_does_not_thin_the_load(tmp_path: Path) -> None:
    """Coordinated omission: every message of the schedule is sent, and waits as long as the freeze implies."""
    freeze_s = 1.2
    run = StartedRun(tmp_path, FROZEN)
    (server,) = children_named(psutil.Process(run.process.pid), "chat", "serve")
    server.suspend()
    frozen_ns = time.monotonic_ns()
    time.sleep(freeze_s)  # the freeze itself, not a synchronisation
    server.resume()
    thawed_ns = time.monotonic_ns()
    assert_finished(*run.end())
    messages = pd.read_csv(next(run.results.iterdir()) / "messages.csv")
    assert (messages["outcome"] == "echoed").all()
    for _, mine in messages.sort_values("id").groupby("user"):
        assert mine["id"].tolist() == list(range(1, len(mine) + 1))
        assert mine["intended_s"].diff().dropna().sub(0.05).abs().max() < 1e-6, (
            "constant arrival: no gap in the schedule"
        )
    start_ns = run.info["trials"][0]["start"]["monotonic_ns"]
    frozen_s, thawed_s = ((moment_ns - start_ns) / 1e9 for moment_ns in (frozen_ns, thawed_ns))
    during = messages["intended_s"].between(frozen_s, thawed_s)
    implied_ms = (thawed_s - messages["intended_s"]).where(during, 0) * 1000
    assert messages["response_time_ms"].quantile(0.99) == pytest.approx(implied_ms.quantile(0.99), rel=0.05)
    assert messages.loc[during, "disturbed"].mean() < 0.2, "a slow server is never a disturbance"


def test_a_closed_workload_and_a_missed_threshold(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    closed = FROZEN.replace("6s", "2s").replace("rate: 20/s", "think_time: 200ms").replace("lan", "{rtt: 100ms}")
    scenario.write_text(closed + "thresholds: ['response_time_ms.p50 < 0.001', 'lost == 0']\n")
    junit = tmp_path / "verdict.xml"
    done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results", "--junit", junit)
    assert_finished(done.returncode, done.stdout + done.stderr, expected=1)
    assert "MISSED: response_time_ms.p50 < 0.001 (" in done.stdout
    assert "passed: lost == 0" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("verdict: ")
    assert 'failures="1"' in junit.read_text()
    messages = pd.read_csv(next((tmp_path / "results").iterdir()) / "messages.csv")
    for _, mine in messages.sort_values("id").groupby("user"):
        assert (mine["intended_s"].diff().dropna() >= 0.3).all(), "answer (100 ms) and think time (200 ms)"


def test_a_message_reaches_those_in_its_senders_room_and_nobody_else(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    rest = "warmup: 0s\nstages: [{users: 7, duration: 3s}]\nvary: {rooms: [1, 3]}"
    with server_process() as server:
        load = "users: {BroadcastUser: 7}\nmessages: {rate: 10/s, arrival: constant}"
        scenario.write_text(f"server: 127.0.0.1:{server.address[1]}\n{load}\n{rest}\n")
        done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    run = Run(next((tmp_path / "results").iterdir()))
    messages, deliveries = run.messages, run.table("deliveries")
    assert set(messages["outcome"]) == {"echoed"}
    for (trial, rooms), mine in messages.groupby(["trial", messages["rooms"].astype(int)]):
        spans = mine.groupby("user")["intended_s"].agg(["min", "max"])
        everybody_is_there = mine["intended_s"].between(spans["min"].max(), spans["max"].min(), inclusive="neither")
        assert everybody_is_there.sum() > 50
        receivers = deliveries[deliveries["trial"] == trial].groupby(["sender", "id"])["receiver"].agg(sorted)
        for _, message in mine[everybody_is_there].iterrows():
            others = {user for user in range(7) if user % rooms == message["user"] % rooms} - {message["user"]}
            assert receivers[message["user"], message["id"]] == sorted(others)
