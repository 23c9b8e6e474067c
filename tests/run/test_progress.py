"""What a run says while it works."""

import math
from pathlib import Path

import pytest

from loadtests.config.yamlfile import Document
from loadtests.load.recorder import Recorder
from loadtests.run.progress import Progress
from loadtests.samples import ECHOED
from loadtests.scenario.matrix import plan

NO_LINK = "{server: '127.0.0.1:1', repetitions: 3, warmup: 0s, stages: [{users: 1, duration: 11s}]}"
THREE = plan(Document.parse(NO_LINK, "s.yaml"))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([1, 2, 3], ["trial 1 of 3", "trial 2 of 3", "trial 3 of 3"]),
        ([2], ["trial 2"]),
        ([3, 1], ["trial 3 of 3", "trial 1 of 3"]),
    ],
)
def test_trials_are_counted_as_the_scenario_numbers_them(
    numbers: list[int], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [THREE[number - 1] for number in numbers]
    progress = Progress(trials)
    for trial in trials:
        progress.begin(trial)
    assert capsys.readouterr().out.splitlines() == [f"{each}, s: starting" for each in said]


def test_the_time_left_is_that_of_the_trials_that_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress([THREE[2], THREE[0]])
    progress.begin(THREE[2])
    progress._last_line_s = -math.inf  # the next line is due
    progress.follow(THREE[2], tmp_path)
    assert "about 40 s left" in capsys.readouterr().out, "twice 11 s of load, and 9 s around it"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (19, "19 messages"),
        (20, "20 messages, response time p50 10.5 ms"),
        (200, "200 messages, response time p50 100.5 ms, p95 190.0 ms"),
    ],
)
def test_no_percentile_is_told_of_too_few_messages(
    answers: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(tmp_path)
    recorder.start()
    for number in range(1, answers + 1):
        recorder.add_sent(0, number, 0, 100, 0, 0)
        recorder.add(ECHOED, 0, number, 0, 0, 1, number * 1_000_000, 0, 0)
    recorder.flush()
    Progress(THREE).end(THREE[0], tmp_path)
    assert capsys.readouterr().out == f"trial 1 of 3, s: {told}\n"


def test_messages_of_the_warm_up_are_said_to_be_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary at the end has fewer, and other percentiles."""
    (trial,) = plan(Document.parse("{server: '127.0.0.1:1', warmup: 2s}", "s.yaml"))
    Recorder(tmp_path).start()
    Progress([trial]).end(trial, tmp_path)
    assert capsys.readouterr().out == "trial 1, s: 0 messages, warm-up too\n"
