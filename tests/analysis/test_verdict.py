"""Thresholds, doubts, and the exit code that they come to."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from test_stats import message, write_run

from loadtests.analysis.read import Run
from loadtests.analysis.verdict import judge, write_junit
from loadtests.cli import main
from loadtests.config.yamlfile import Document
from loadtests.errors import ConfigError, ExitCode
from loadtests.link.backends.backend import LinkStats
from loadtests.run.manifest import MachineFacts, Manifest, Start, TrialRecord
from loadtests.samples import TABLES
from loadtests.scenario.scenario import decode
from loadtests.scenario.thresholds import METRICS, Threshold


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "response_time_ms.p98 < 5",
            "unknown metric 'response_time_ms.p98'; allowed: count, disturbed, response_time_ms.average",
        ),
        ("p99 below 5", "expected METRIC < LIMIT"),
        ("lost == 0 where link", "expected METRIC < LIMIT"),
    ],
)
def test_a_threshold_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|expected") as caught:
        Threshold.from_yaml(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("metric", ["registration_ms", "response_time_ms.registration"])
def test_a_time_that_is_none_of_response_goes_by_its_own_name_and_by_the_old_one(metric: str) -> None:
    assert Threshold.from_yaml(f"{metric} < 500").column == "registration_ms"


def test_a_threshold_for_a_variant_that_there_is_not_is_refused() -> None:
    text = "vary: {link: [lan]}\nthresholds: ['lost == 0 where link=moon']"
    with pytest.raises(ConfigError, match="no variant has link=moon"):
        decode(Document.parse(text, "s.yaml"))


def test_metrics_are_the_columns_of_the_summary() -> None:
    assert set(METRICS.values()) == set(TABLES["summary"]) - {"variant"}


LATE = LinkStats(
    path="primary",
    direction="up",
    delivered_packets=100,
    delivered_bytes=10_000,
    dropped_packets=0,
    lateness_p99_us=9000.0,
)


def run_of(folder: Path, *thresholds: str, **changes: Any) -> Run:
    """A run of two links, 10 and 100 ms, in which nothing gives reason for doubt but `changes`."""
    trials = [
        TrialRecord(number=n, name=name, variant={"link": name}, **{"state": "finished"} | changes.get("trial", {}))
        for n, name in ((1, "lan"), (2, "far"))
    ]
    trials += changes.get("repetitions", [])
    scenario = {"vary": {"link": ["lan", "far"]}, "thresholds": list(thresholds)} | changes.get("scenario", {})
    state = changes.get("state", "finished")
    Manifest(scenario=scenario, labels={"link": ["lan", "far"]}, trials=trials, cores=2, state=state).write(folder)
    message = {
        "user": changes.get("user", 0),
        "id": 1,
        "outcome": "echoed",
        "warmup": changes.get("warmup", 0),
        "send_lag_ms": changes.get("send_lag_ms", 0.1),
        "disturbed": changes.get("disturbed", 0),
        "intended_s": 5.0,
    }
    times = {1: 10.0, 2: 100.0}
    rows: dict[str, list[dict[str, Any]]] = {
        "messages": [
            message | {"trial": n, "response_time_ms": t, "service_time_ms": changes.get("service_time_ms", t)}
            for n, t in times.items()
        ],
        "machine": [
            {"trial": n, "time_s": 2.0, "process": process, "cpu_percent": changes.get(process, 10.0)}
            for n in times
            for process in ("load", "load-1", "machine")
        ],
        "link": [
            {"trial": n, "path": "primary", "direction": "up", "metric": "delay_ms", "measured": 5.0, "low": 4.0}
            | {
                "high": 6.0,
                "disturbed": changes.get("disturbed_link", False),
                "when": when,
                "within": changes.get(when, True),
            }
            for n in times
            for when in ("before", "after")
        ]
        + [{"trial": n, "when": "change", "time_s": 1.0, "path": "primary", "change": "outage"} for n in times],
    }
    rows["clients"] = [{"trial": 1, "registration_ms": ms} for ms in changes.get("registrations_ms", ())]
    if "let_in_s" in changes:
        rows["clients"] = [
            {"trial": n, "user": 0, "registration_ms": 3, "let_in_s": changes["let_in_s"]} for n in times
        ]
    for table, columns in TABLES.items():
        pd.DataFrame(rows.get(table, []), columns=list(columns)).to_csv(folder / f"{table}.csv", index=False)
    return Run(folder)


def test_each_variant_is_checked(tmp_path: Path) -> None:
    verdict = judge(run_of(tmp_path, "response_time_ms.p50 < 50", "lost == 0"))
    assert [(check.variant, check.passed) for check in verdict.checks] == [
        ("lan", True),
        ("far", False),
        ("lan", True),
        ("far", True),
    ]
    assert verdict.exit_code == ExitCode.FAILED
    assert "MISSED: response_time_ms.p50 < 50 (far: 100; too few to tell: 1 message, it takes 20)" in str(verdict)
    assert "passed: lost == 0 (far: 0)" in str(verdict)
    assert verdict.headline == "verdict: failed, thresholds kept in 3 of 4 cases (exit code 1)"


def test_where_restricts_a_threshold(tmp_path: Path) -> None:
    verdict = judge(run_of(tmp_path, "response_time_ms.p50 < 50 where link=lan"))
    assert [check.variant for check in verdict.checks] == ["lan"]
    assert verdict.exit_code == ExitCode.PASSED


@pytest.mark.parametrize("answered", [199, 200])
def test_a_percentile_that_is_judged_of_too_few_messages_says_so(tmp_path: Path, answered: int) -> None:
    """What was refused did not wait."""
    rows = [message(1, 10.0)] * answered + [message(1, None, outcome="refused")] * 10
    run = write_run(tmp_path, {"messages": rows}, [{"link": "lan"}])
    run.manifest.scenario["thresholds"] = ["response_time_ms.p95 < 50", "response_time_ms.average < 50"]
    verdict = judge(run)
    note = "too few to tell: 199 messages, it takes 200" if answered == 199 else ""
    assert [(check.passed, check.note) for check in verdict.checks] == [(True, note), (True, "")]
    write_junit(verdict, "s", tmp_path / "junit.xml")
    said = [each.text for each in ET.parse(tmp_path / "junit.xml").iter("system-out")]
    assert said == ([note] if note else [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"before": False}, "lan: before the load the link was off: primary up delay_ms is 5, allowed 4 to 6"),
        ({"after": False}, "lan: after the load the link was off: primary up delay_ms is 5, allowed 4 to 6"),
        ({"load": 90.0}, "lan: the load generator used 90 % of a core, more than 70 %"),
        ({"load-1": 90.0}, "lan: the load generator of worker 1 used 90 % of a core, more than 70 %"),
        ({"send_lag_ms": 60.0}, "lan: messages were sent 60.0 ms late at a service time of 10.0 ms"),
        ({"send_lag_ms": 60.0, "user": 200_003}, "lan: messages of worker 2 were sent 60.0 ms late"),
        (
            {"send_lag_ms": 60.0, "service_time_ms": float("nan")},
            "lan: messages were sent 60.0 ms late and none was answered",
        ),
        ({"trial": {"clock_step_ms": -3600e3}}, "lan: the wall clock was stepped by -3600000 ms"),
        ({"trial": {"state": "interrupted"}}, "lan: the trial was interrupted"),
        ({"trial": {"state": "failed"}}, "lan: the trial failed"),
        ({"state": "running"}, "the run did not come to its end: it still goes on, or was killed"),
        ({"registrations_ms": [3.0, None, None]}, "lan: 2 of 3 users were not let in"),
        ({"registrations_ms": [3.0, 0.0]}, "lan: 1 of 2 users were not let in"),
        ({"warmup": 1}, "lan: nobody said anything after the warm-up"),
    ],
)
def test_every_reason_for_doubt_is_said_and_outranks_thresholds(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    verdict = judge(run_of(tmp_path, "response_time_ms.p50 < 50", **changes))
    assert any(doubt.sentence.startswith(reason) for doubt in verdict.doubts), verdict.doubts
    assert verdict.exit_code == ExitCode.NOT_TRUSTWORTHY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"machine": 195.0}, "lan: 98 % of the machine was busy"),
        ({"trial": {"link_counters": [LATE]}}, "lan: the emulator of primary was late: p99 9.0 ms"),
        ({"trial": {"machine": MachineFacts(others_percent={"chrome": 85.2})}}, "chrome used 85 % of a core"),
        (
            {"trial": {"machine": MachineFacts(stalled_share=0.3, longest_stall_ms=180, disturbed_share=0.12)}},
            "something of higher priority took 30 % of the CPU in 2 of 2 trials, up to 180 ms at a time; ",
        ),
        (
            {
                "trial": {
                    "machine": MachineFacts(
                        stalled_share=0.3, steal_share=0.31, longest_stall_ms=180, disturbed_share=0.12
                    )
                }
            },
            "the host withheld 31 % of the CPU in 2 of 2 trials",
        ),
        (
            {"trial": {"machine": MachineFacts(disturbed_share=0.12)}},
            "the emulator of the link was late in 2 of 2 trials; ",
        ),
        (
            {"before": False, "disturbed_link": True},
            "the machine stalled while a link was measured: lan: before the load the",
        ),
        (
            {"after": False, "disturbed_link": True},
            "the machine stalled while a link was measured: lan: after the load the",
        ),
    ],
)
def test_what_the_machine_did_is_said_once_and_takes_no_threshold_away(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    verdict = judge(run_of(tmp_path, "response_time_ms.p50 < 50", **changes))
    (doubt,) = verdict.doubts
    assert doubt.sentence.startswith(reason), doubt.sentence
    assert str(doubt).startswith("note: ")
    assert verdict.exit_code == ExitCode.FAILED


def test_what_waited_for_its_user_to_be_let_in_is_told_and_not_held_against_the_generator(tmp_path: Path) -> None:
    verdict = judge(run_of(tmp_path, let_in_s=7.9, send_lag_ms=2900.0))
    assert [str(doubt) for doubt in verdict.doubts] == [
        "note: lan: 1 of 1 messages were due before their user was let in, and waited for that, up to 2.9 s; "
        "a longer warm-up leaves them out (and 1 more like it)"
    ]
    assert verdict.exit_code == ExitCode.PASSED


def test_too_little_that_is_undisturbed_is_no_answer(tmp_path: Path) -> None:
    verdict = judge(run_of(tmp_path, "response_time_ms.p50 < 50", disturbed=1))
    assert [doubt.sentence for doubt in verdict.doubts if doubt.is_fatal] == [
        "lan: only 0 of 1 messages are undisturbed; repeat more: --repeat 5 (and 1 more like it)"
    ]
    assert verdict.exit_code == ExitCode.NOT_TRUSTWORTHY


def test_nobody_is_told_to_repeat_what_was_no_better_when_it_was_repeated(tmp_path: Path) -> None:
    busy = MachineFacts(stalled_share=0.3, longest_stall_ms=60, disturbed_share=0.7)
    again = TrialRecord(
        number=3, name="far", variant={"link": "far"}, state="rejected", start=Start(1, 1), machine=busy
    )
    verdict = judge(run_of(tmp_path, disturbed=1, trial={"machine": busy, "start": Start(1, 1)}, repetitions=[again]))
    assert [doubt.sentence for doubt in verdict.doubts] == [
        "lan: only 0 of 1 messages are undisturbed (and 1 more like it)",
        "something of higher priority took 30 % of the CPU in 3 of 3 trials, up to 60 ms at a time; 100 % of the "
        "messages are left out, and repeating a trial did not help. Run it where fewer programs run",
    ]


def test_a_terminal_gets_five_lines_and_the_report_everything(tmp_path: Path) -> None:
    trial = {"clock_step_ms": 3600e3, "link_counters": [LATE], "machine": MachineFacts(others_percent={"chrome": 99.0})}
    run = run_of(tmp_path, before=False, load=90.0, send_lag_ms=60.0, trial=trial)
    verdict = judge(run)
    assert len(verdict.doubts) == 6
    assert len([*str(verdict).splitlines(), verdict.headline]) == 5
    assert str(verdict).endswith("note: 3 more in the report")
    assert any("far: the wall clock was stepped" in detail for doubt in verdict.doubts for detail in doubt.details)


@pytest.mark.parametrize(
    "changes", [{}, {"registrations_ms": [3.0, 4.0]}, {"warmup": 1, "scenario": {"users": {"ListeningUser": "1"}}}]
)
def test_a_run_without_reason_for_doubt_is_trusted(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert judge(run_of(tmp_path, **changes)).doubts == []


@pytest.mark.parametrize("name", ["summary.csv", "report.html"])
def test_a_run_that_is_only_to_be_read_is_judged_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A folder in the file's place keeps root from writing it, too."""
    run_of(tmp_path, "lost == 0")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    assert main(["report", str(tmp_path)]) == ExitCode.PASSED
    said = capsys.readouterr()
    place = tmp_path / name
    assert said.err == f"chatlab: {place}: cannot be written: is a directory; the verdict is told all the same\n"
    assert "verdict: passed, thresholds kept in 2 of 2 cases\n" in said.out


def test_junit_shows_checks_and_trust(tmp_path: Path) -> None:
    file = tmp_path / "verdict.xml"
    write_junit(judge(run_of(tmp_path, "response_time_ms.p50 < 50", load=90.0)), "demo", file)
    suite = ET.parse(file).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("3", "1", "1")
    cases = {(case.attrib["classname"], case.attrib["name"]): [child.tag for child in case] for case in suite}
    assert cases["far", "response_time_ms.p50 < 50"] == ["failure", "system-out"]
    assert cases["lan", "response_time_ms.p50 < 50"] == ["system-out"]
    assert cases["demo", "the run is trustworthy"] == ["error"]
