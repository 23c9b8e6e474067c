"""Whole runs: real links, a real server, real Locust, the report; and what is left when one is cut short."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from chat_helpers import server_process
from run_helpers import assert_finished, chatlab

from loadtests.analysis.read import Run
from loadtests.samples import SCHEMA_VERSION, TABLES

pytestmark = pytest.mark.realtime("runs")

ROOT = Path(__file__).parents[2]
LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]

SHORT = """
link: {rtt: 60ms, jitter: 2ms, loss: 5%}
users: {BroadcastUser: 5, PrivateUser: 2, ListeningUser: 1}
messages: {rate: 5/s}
stages: [{users: 8, duration: 4s}]
warmup: 1s
vary:
  connections: [single, redundant]
"""
BRIEF = "warmup: 0s\nstages: [{users: 1, duration: 1s}]\n"
LONG = SHORT.replace("4s", "60s")
FROZEN = """
link: lan
users: {BroadcastUser: 4}
messages: {rate: 20/s, arrival: constant}
stages: [{users: 4, duration: 6s}]
warmup: 0s
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory of a finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    scenario = folder / "short.yaml"
    scenario.write_text(SHORT)
    done = chatlab("run", scenario, "--results", folder / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    return next((folder / "results").iterdir()), done.stdout


def test_run_prints_summary_and_where_everything_is(finished: tuple[Path, str]) -> None:
    directory, printed = finished
    assert "trial 2 of 2" in printed
    assert "p99_ms" in printed
    assert f"results: {directory}" in printed
    assert f"report:  {directory / 'report.html'}" in printed


def test_every_table_has_the_columns_of_the_dictionary(finished: tuple[Path, str]) -> None:
    for name, columns in TABLES.items():
        table = pd.read_csv(finished[0] / f"{name}.csv")
        assert len(table) or name in ("pauses", "files"), name
        varied = ["connections"] if name == "summary" else []
        assert sorted(table.columns) == sorted([*columns, *varied]), name


def test_every_message_is_accounted_for(finished: tuple[Path, str]) -> None:
    messages = pd.read_csv(finished[0] / "messages.csv")
    assert set(messages["outcome"]) == {"echoed"}
    assert not messages.duplicated(["trial", "user", "id"]).any()
    # 7 talking users at 5/s for 4 s: 140 messages a trial, ± 4 standard deviations of a Poisson count.
    counts = messages.groupby("trial").size()
    assert counts.between(140 - 4 * 140**0.5, 140 + 4 * 140**0.5).all(), counts
    compared = 0
    # When a user joins depends on the link (its SYN may be lost); from then on its schedule is exactly the same.
    for _, mine in messages.sort_values("id").groupby("user"):
        gaps = [rows["intended_s"].diff().dropna().to_numpy() for _, rows in mine.groupby("trial")]
        both = min(map(len, gaps))
        compared += both
        assert gaps[0][:both] == pytest.approx(gaps[1][:both], abs=1e-8), (
            "variants of a repetition share their schedule"
        )
    assert compared > 60, "half of what 7 users send in 4 s at 5/s"


def test_response_time_is_that_of_the_link(finished: tuple[Path, str]) -> None:
    summary = pd.read_csv(finished[0] / "summary.csv").set_index("connections")
    assert 58 <= summary.loc["single", "p50_ms"] <= 60 * 1.15 + 20
    assert (summary["minimum_ms"] >= 56).all()
    assert summary.loc["redundant", "copies_dropped"] > 0
    messages = pd.read_csv(finished[0] / "messages.csv")
    lags = messages.groupby(messages["trial"].map({1: "single", 2: "redundant"}))["second_copy_lag_ms"]
    assert lags.count()["single"] == 0
    # Nobody waits for a second copy at the end of the trial, so the last ones may be missing.
    assert lags.count()["redundant"] > 0.8 * lags.size()["redundant"]
    assert lags.median()["redundant"] > 0
    fan_out = messages.dropna(subset="last_delivery_ms")
    assert len(fan_out) > 0.8 * len(messages), "of the last ones the receivers may have left"
    assert (fan_out["last_delivery_ms"] >= fan_out["first_delivery_ms"]).all()
    assert (summary["duplicated"] == 0).all()
    assert (summary["retransmissions"] > 0).all()
    deliveries = pd.read_csv(finished[0] / "deliveries.csv")
    assert deliveries["one_way_delay_ms"].median() == pytest.approx(60, abs=9)


def test_every_row_has_the_arrival_of_its_own_packet(finished: tuple[Path, str]) -> None:
    info = json.loads((finished[0] / "run.json").read_text())
    assert [trial["wire"]["dropped"] for trial in info["trials"]] == [0, 0]
    assert not any(trial["wire"]["problem"] for trial in info["trials"])
    messages, deliveries = (pd.read_csv(finished[0] / f"{name}.csv") for name in ("messages", "deliveries"))
    assert set(messages["stamp"]) == set(deliveries["stamp"]) == {"wire"}
    assert (messages["seen_lag_ms"] > -0.1).all(), "read before it came, by more than what two clocks may differ"
    assert (messages["second_copy_lag_ms"].dropna() >= 0).all()


def test_both_ends_of_every_connection_are_in_tcp_csv(finished: tuple[Path, str]) -> None:
    tcp = pd.read_csv(finished[0] / "tcp.csv")
    ends = tcp.drop_duplicates(["trial", "side", "user", "path"]).groupby(["trial", "side", "path"]).size()
    assert (ends == 8).all(), ends
    assert len(ends) == 2 + 4, "one path for single, two for redundant, each with two sides"


def test_links_were_as_requested(finished: tuple[Path, str]) -> None:
    link = pd.read_csv(finished[0] / "link.csv")
    rtt = link[link["metric"] == "rtt_ms"]
    assert rtt.groupby("trial")["when"].unique().map(list).tolist() == [["before", "after"]] * 2
    assert (rtt["measured"] - 60).abs().max() <= 60 * 0.05 + 1
    assert link["within"].all(), link[~link["within"]]


def test_run_json_says_how_it_came_about(finished: tuple[Path, str]) -> None:
    info = json.loads((finished[0] / "run.json").read_text())
    assert info["state"] == "finished"
    assert info["schema_version"] == SCHEMA_VERSION
    assert {trial["state"] for trial in info["trials"]} == {"finished"}
    assert {trial["backend"] for trial in info["trials"]} <= {"emulator", "netem"}
    for trial in info["trials"]:
        assert trial["seed"]
        assert trial["start"]["epoch_ns"]


def test_report_holds_the_figures(finished: tuple[Path, str]) -> None:
    report = (finished[0] / "report.html").read_text()
    assert report.count('<img alt="') == 4
    assert "Traceback" not in report


def test_report_can_be_made_anew(finished: tuple[Path, str]) -> None:
    report = finished[0] / "report.html"
    report.unlink()
    done = chatlab("report", finished[0])
    assert_finished(done.returncode, done.stdout + done.stderr)
    assert report.exists()


def children_named(process: psutil.Process, *words: str) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if all(word in child.cmdline() for word in words)]


class StartedRun:
    """A run in a process of its own that has come as far as its load."""

    def __init__(self, folder: Path, text: str = LONG) -> None:
        scenario = folder / "long.yaml"
        scenario.write_text(text)
        self.results = folder / "results"
        command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--results", str(self.results)]
        # A session of its own, as a terminal gives it: Ctrl-C reaches every process of the group.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "response time" in line:
                return
        raise AssertionError(f"the run ended early: {self.process.communicate()}")

    def end(self) -> tuple[int, str]:
        """Exit code, and the rest of what it printed."""
        printed, errors = self.process.communicate(timeout=60)
        return self.process.returncode, printed + errors

    @property
    def info(self) -> dict[str, Any]:
        return json.loads((next(self.results.iterdir()) / "run.json").read_text())


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
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--results", str(results)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    assert any("trial 2 of 2" in line for line in run.stdout)
    run.kill()  # in the middle of the second trial
    run.communicate()
    (directory,) = results.iterdir()
    first = pd.read_csv(directory / "messages.csv", dtype=str)
    done = chatlab("run", "--resume", directory)
    assert_finished(done.returncode, done.stdout + done.stderr)
    assert "trial 1 of" not in done.stdout
    messages = pd.read_csv(directory / "messages.csv", dtype=str)
    assert messages[messages["trial"] == "1"].equals(first[first["trial"] == "1"]), "finished trials stay as they are"
    assert set(messages["trial"]) == {"1", "2"}
    info = json.loads((directory / "run.json").read_text())
    assert [trial["number"] for trial in info["trials"]] == [1, 2]
    assert info["state"] == "finished"


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


def test_a_closed_workload_and_a_missed_threshold(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    closed = FROZEN.replace("6s", "2s").replace("rate: 20/s", "think_time: 200ms").replace("lan", "{rtt: 100ms}")
    scenario.write_text(closed + "thresholds: ['response_time_ms.p50 < 0.001', 'lost == 0']\n")
    junit = tmp_path / "verdict.xml"
    done = chatlab("run", scenario, "--results", tmp_path / "results", "--junit", junit)
    assert_finished(done.returncode, done.stdout + done.stderr, expected=1)
    assert "MISSED: response_time_ms.p50 < 0.001 (" in done.stdout
    assert "passed: lost == 0" in done.stdout
    assert 'failures="1"' in junit.read_text()
    messages = pd.read_csv(next((tmp_path / "results").iterdir()) / "messages.csv")
    for _, mine in messages.sort_values("id").groupby("user"):
        assert (mine["intended_s"].diff().dropna() >= 0.3).all(), "answer (100 ms) and think time (200 ms)"


def test_a_run_without_link_and_without_messages_has_a_report(tmp_path: Path) -> None:
    """Against somebody else's server, with users who only listen: no `link.csv`, nothing to draw."""
    scenario = tmp_path / "s.yaml"
    with server_process() as server:
        address = f"127.0.0.1:{server.address[1]}"
        scenario.write_text(f"server: {address}\nusers: {{ListeningUser: 1}}\n" + BRIEF)
        done = chatlab("run", scenario, "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    (directory,) = (tmp_path / "results").iterdir()
    assert not (directory / "link.csv").exists()
    assert "Traceback" not in (directory / "report.html").read_text()


def test_a_message_reaches_those_in_its_senders_room_and_nobody_else(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    rest = "warmup: 0s\nstages: [{users: 7, duration: 3s}]\nvary: {rooms: [1, 3]}"
    with server_process() as server:
        load = "users: {BroadcastUser: 7}\nmessages: {rate: 10/s, arrival: constant}"
        scenario.write_text(f"server: 127.0.0.1:{server.address[1]}\n{load}\n{rest}\n")
        done = chatlab("run", scenario, "--results", tmp_path / "results")
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


def test_a_server_that_dies_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    run = StartedRun(tmp_path)
    (server,) = children_named(psutil.Process(run.process.pid), "chat", "serve")
    server.kill()
    code, printed = run.end()
    assert code == 2
    assert "the chat server ended by itself" in printed
    assert str(run.info["state"]).startswith("failed: the chat server ended")
    assert (next(run.results.iterdir()) / "messages.csv").exists()


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("lnk: lan", [], "s.yaml:1: lnk: unknown key; did you mean 'link'? allowed: "),
        ("users: {BroadcastUser: ten}", [], "s.yaml:1: users.BroadcastUser: expected a whole number, got 'ten'"),
        ("link: {rtt: 10mbit}", [], "s.yaml:1: link.rtt: expected a time with a unit"),
        ("link: moon", [], "s.yaml:1: link: unknown link 'moon'; known: 2g, "),
        ("link: lan", ["messages.rate=5"], "--set messages.rate=5: messages.rate: expected a rate of events"),
        ("link: lan", ["rate"], "--set rate: expected KEY=VALUE"),
        (None, [], "s.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(
    tmp_path: Path, text: str | None, settings: list[str], message: str
) -> None:
    scenario = tmp_path / "s.yaml"
    if text is not None:
        scenario.write_text(text)
    done = chatlab("run", scenario, "--results", tmp_path / "results", *(f"--set={each}" for each in settings))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "results").exists()


def test_check_says_what_would_run() -> None:
    done = chatlab("check", "demo")
    assert done.returncode == 0
    assert "6 trials" in done.stdout
    assert "satellite redundant" in done.stdout


def test_plain_locust_drives_a_running_server(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("users: {BroadcastUser: 2, ListeningUser: 1}\nmessages: {rate: 5/s}\nwarmup: 0s")
    with server_process() as server:
        host = f"127.0.0.1:{server.address[1]}"
        options = ["--headless", "-u", "3", "-r", "10", "-t", "3s", "--scenario", str(scenario), "--host", host]
        done = subprocess.run([*LOCUST, *options, "--json"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        _, log = server.stop()
    (row,) = json.loads(done.stdout)
    assert row["name"] == "say"
    assert row["num_requests"] > 10
    assert log.count("is here from") == log.count("says bye") == 3


def wait_for_port(port: int) -> None:
    """Return when somebody listens on the port."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline_s, f"nobody listens on port {port}"
            time.sleep(0.05)


def test_locusts_own_web_ui_is_served() -> None:
    with server_process() as server, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        options = ["--host", f"127.0.0.1:{server.address[1]}", "--web-host", "127.0.0.1", "--web-port", str(port)]
        locust = subprocess.Popen([*LOCUST, *options], stderr=subprocess.PIPE, text=True)
        try:
            wait_for_port(port)
            form = b"user_count=2&spawn_rate=2&host=" + options[1].encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/swarm", data=form, timeout=10) as answer:
                assert json.load(answer)["success"]
        finally:
            locust.terminate()
            locust.communicate(timeout=30)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--host", "nonsense"], "expected 'embedded' or HOST:PORT"), (["--scenario", "nowhere.yaml"], "no such file")],
)
def test_plain_locust_refuses_bad_options_in_one_line(options: list[str], message: str) -> None:
    done = subprocess.run([*LOCUST, "--headless", *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
