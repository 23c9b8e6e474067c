"""The load that a run makes: open and closed workloads, a server that stands still, who hears whom."""

import socket
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from chat_helpers import server_process
from run_helpers import FROZEN, StartedRun, assert_finished, chatlab, children_named

from loadtests.analysis.read import Run
from loadtests.samples import TABLES

pytestmark = pytest.mark.realtime("runs")


def frozen(process: psutil.Process, freeze_s: float) -> tuple[int, int]:
    """Stops a process for so long; from when to when (CLOCK_MONOTONIC) that was."""
    process.suspend()
    begin_ns = time.monotonic_ns()
    time.sleep(freeze_s)  # the freeze itself, not a synchronisation
    process.resume()
    return begin_ns, time.monotonic_ns()


def unexplained(disturbed: pd.DataFrame, stalls: pd.DataFrame, longest_s: float) -> list[float]:
    """When messages were due that were marked, though no stall shorter than this was near any moment of theirs."""
    short = stalls[stalls["length_ms"] < longest_s * 1000]
    begins_s, ends_s = short["time_s"] - 0.01, short["time_s"] + short["length_ms"] / 1000 + 0.01

    def met(moment_s: float) -> bool:
        return bool(((begins_s < moment_s) & (moment_s < ends_s)).any())

    answered_s = disturbed["intended_s"] + disturbed["response_time_ms"] / 1000
    moments_s = zip(disturbed["intended_s"], disturbed["sent_s"], answered_s, strict=True)
    return [due_s for due_s, *others_s in moments_s if not any(map(met, (due_s, *others_s)))]


def test_a_frozen_server_or_client_does_not_thin_the_load_and_is_no_disturbance(tmp_path: Path) -> None:
    """Coordinated omission: every message of the schedule is sent, and waits as long as the freeze implies."""
    run = StartedRun(tmp_path, FROZEN)
    family = psutil.Process(run.process.pid)
    (server,), (load,) = children_named(family, "chat", "serve"), children_named(family, "locust")
    freezes_ns = [frozen(server, 2.0), frozen(load, 0.5)]
    assert_finished(*run.end())
    directory = next(run.results.iterdir())
    messages, stalls = (pd.read_csv(directory / f"{name}.csv") for name in ("messages", "stalls"))
    assert (messages["outcome"] == "echoed").all()
    for _, mine in messages.sort_values("id").groupby("user"):
        assert mine["id"].tolist() == list(range(1, len(mine) + 1))
        assert mine["intended_s"].diff().dropna().sub(0.05).abs().max() < 1e-6, (
            "constant arrival: no gap in the schedule"
        )
    start_ns = run.info["trials"][0]["start"]["monotonic_ns"]
    freezes_s = [[(moment_ns - start_ns) / 1e9 for moment_ns in freeze_ns] for freeze_ns in freezes_ns]
    implied_ms = pd.Series(0.0, messages.index)
    for frozen_s, thawed_s in freezes_s:
        during = messages["intended_s"].between(frozen_s, thawed_s)
        assert during.sum() > 60 * (thawed_s - frozen_s), "4 users, each 20 times a second"
        implied_ms[during] = (thawed_s - messages["intended_s"]) * 1000
        assert not unexplained(messages[during & (messages["disturbed"] == 1)], stalls, (thawed_s - frozen_s) / 2)
    assert messages["response_time_ms"].quantile(0.99) == pytest.approx(implied_ms.quantile(0.99), rel=0.05)
    assert 1800 < implied_ms.quantile(0.99) < 2000


def test_a_closed_workload_and_a_missed_threshold(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    closed = FROZEN.replace("4s", "2s").replace("rate: 20/s", "think_time: 200ms").replace("lan", "{rtt: 100ms}")
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


def test_tls_costs_a_round_trip_more_before_a_user_is_in(tmp_path: Path) -> None:
    """RFC 8446: TLS 1.3's handshake takes one round trip; TCP's takes one, and so does the registration."""
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "link: {rtt: 100ms}\nusers: {BroadcastUser: 4}\nconnections: redundant\nwarmup: 0s\n"
        "stages: [{users: 4, duration: 1s}]\nvary: {tls: [false, true]}\n"
    )
    done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    (run,) = (tmp_path / "results").iterdir()
    summary = pd.read_csv(run / "summary.csv").set_index("tls")["registration_ms"]
    assert summary.loc[False] == pytest.approx(200, rel=0.1)
    assert summary.loc[True] == pytest.approx(300, rel=0.1)
    messages = pd.read_csv(run / "messages.csv")
    assert set(messages["outcome"]) == {"echoed"}
    assert "wire" not in set(messages["stamp"]), "nobody can read the packets"


def test_a_message_reaches_those_in_its_senders_room_and_nobody_else(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    rest = "warmup: 0s\nstages: [{users: 7, duration: 3s}]\nvary: {rooms: [1, 3]}"
    with server_process() as server:
        load = "users: {BroadcastUser: 7}\nmessages: {rate: 10/s, arrival: constant}"
        scenario.write_text(f"server: 127.0.0.1:{server.address[1]}\n{load}\n{rest}\n")
        done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    run = Run(next((tmp_path / "results").iterdir()))
    messages, deliveries = run.measured(*TABLES["messages"]), run.table("deliveries")
    assert set(messages["outcome"]) == {"echoed"}
    for (trial, rooms), mine in messages.groupby(["trial", messages["rooms"].astype(int)]):
        spans = mine.groupby("user")["sent_s"].agg(["min", "max"])
        everybody_is_there = mine["sent_s"].between(spans["min"].max(), spans["max"].min(), inclusive="neither")
        assert everybody_is_there.sum() > 50
        receivers = deliveries[deliveries["trial"] == trial].groupby(["sender", "id"])["receiver"].agg(sorted)
        for _, message in mine[everybody_is_there].iterrows():
            others = {user for user in range(7) if user % rooms == message["user"] % rooms} - {message["user"]}
            assert receivers[message["user"], message["id"]] == sorted(others)


@pytest.mark.parametrize("rooms", [1, 2])
def test_a_run_in_which_nobody_was_let_in_is_not_trustworthy(tmp_path: Path, rooms: int) -> None:
    scenario = tmp_path / "s.yaml"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        load = f"users: {{BroadcastUser: 3}}\nmessages: {{rate: 20/s}}\nrooms: {rooms}\n"
        load += "stages: [{users: 3, duration: 1s}]\nwarmup: 0s\n"
        scenario.write_text(f"server: 127.0.0.1:{nobody.getsockname()[1]}\n{load}thresholds: [lost == 0]\n")
        done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "NOT TRUSTWORTHY: s: 3 of 3 users were not let in" in done.stdout
    assert "MISSED: lost == 0" in done.stdout, "what was due was lost"
    (run,) = (tmp_path / "results").iterdir()
    assert pd.read_csv(run / "clients.csv")["registration_ms"].isna().tolist() == [True, True, True]


def test_who_comes_late_reaches_the_ramps_end_with_all_others(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    with server_process() as server:
        load = "users: {BroadcastUser: 4}\nmessages: {rate: 2/s, ramp_to: 32/s, arrival: constant}\nwarmup: 0s"
        stages = "stages: [{users: 1, duration: 4s}, {users: 4, duration: 2s}]"
        scenario.write_text(f"server: 127.0.0.1:{server.address[1]}\n{load}\n{stages}\n")
        done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    messages = pd.read_csv(next((tmp_path / "results").iterdir()) / "messages.csv")
    at_the_end = messages[messages["intended_s"].between(5, 6)].groupby("user").size()
    assert len(at_the_end) == 4
    assert at_the_end.between(27, 32).all(), "29.5 on the average"
