"""Whole runs: real links, a real server, real Locust, the report."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from chat_helpers import server_process
from run_helpers import SHORT, assert_finished, chatlab

from loadtests.samples import SCHEMA_VERSION, TABLES

pytestmark = pytest.mark.realtime("runs")

BRIEF = "warmup: 0s\nstages: [{users: 1, duration: 1s}]\n"


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
    assert "p50_ms" in printed
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
    # When Locust starts a user is its own time in each trial; from then on its schedule is exactly the same.
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
    undisturbed = deliveries[deliveries["disturbed"] == 0]
    assert undisturbed["one_way_delay_ms"].median() == pytest.approx(60, abs=9)


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
    images = re.findall(r"<img [^>]*>", report)
    assert len(images) >= 10
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    assert "Traceback" not in report


def test_a_run_without_link_and_without_messages_has_a_report(tmp_path: Path) -> None:
    """Against somebody else's server, with users who only listen: no `link.csv`, nothing to draw; written later."""
    scenario = tmp_path / "s.yaml"
    with server_process() as server:
        address = f"127.0.0.1:{server.address[1]}"
        scenario.write_text(f"server: {address}\nusers: {{ListeningUser: 1}}\n" + BRIEF)
        done = chatlab("run", scenario, "--no-report", "--results", tmp_path / "results")
    assert_finished(done.returncode, done.stdout + done.stderr)
    (directory,) = (tmp_path / "results").iterdir()
    assert not (directory / "link.csv").exists()
    assert not (directory / "report.html").exists()
    done = chatlab("report", directory)
    assert_finished(done.returncode, done.stdout + done.stderr)
    assert "Traceback" not in (directory / "report.html").read_text()
