"""Scenario files, the matrix of trials made of them, and schedules."""

import itertools
import random
from pathlib import Path
from typing import get_args

import pytest

from loadtests.config.yamlfile import Document
from loadtests.data import SCENARIOS
from loadtests.errors import ConfigError
from loadtests.scenario.matrix import plan
from loadtests.scenario.scenario import UserClass, decode, read_document
from loadtests.scenario.schedule import Ramp, intended_times


def parse(text: str) -> Document:
    return Document.parse(text, "s.yaml")


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_scenario_can_be_planned(file: Path) -> None:
    assert plan(read_document(str(file)))


def test_a_link_alone_is_a_valid_scenario() -> None:
    scenario, links = decode(parse("link: satellite"))
    assert scenario.connections == "single"
    assert links["primary"].rtt_s == pytest.approx(0.6)
    assert list(links) == ["primary"]


def test_each_path_may_have_a_link_of_its_own() -> None:
    _, links = decode(parse("connections: redundant\nlink: {primary: lan, secondary: {rtt: 80ms}}"))
    assert links["primary"].name == "lan"
    assert links["secondary"].rtt_s == pytest.approx(0.08)


@pytest.mark.parametrize("entry", ["{at: 10s, outage: 30s}", "{at: 11s, ramp: 5s, rtt: 40ms}"])
def test_what_a_link_begins_may_go_on_after_the_end_of_the_load(entry: str) -> None:
    _, links = decode(parse(f"link: {{rtt: 10ms, timeline: [{entry}]}}"))
    assert links["primary"].timeline[-1].at_s > 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lnk: lan", "s.yaml:1: lnk: unknown key; did you mean 'link'? allowed: description, link, "),
        ("users: {BroadcastUser: two}", "s.yaml:1: users.BroadcastUser: expected a whole number"),
        ("users: {BroadcastUser: 0}", "s.yaml:1: users.BroadcastUser: expected a whole number >= 1"),
        ("users: {Robot: 1}", "s.yaml:1: users.Robot: unknown user class; allowed: BroadcastUser, "),
        ("users: {}", "s.yaml:1: users: expected at least one user class"),
        ("users: {FileUser: 1}", "s.yaml:1: users.FileUser: nobody is there to take the files"),
        (
            "users: {FileUser: 1, ListeningUser: 1}\nstages: [{users: 1, duration: 9s}]",
            "s.yaml:1: users.FileUser: nobody is there to take the files",
        ),
        ("warmup: 2", "s.yaml:1: warmup: expected a time with a unit"),
        ("warmup: 60s", "s.yaml:1: warmup: 60 s must be shorter than the stages (12 s)"),
        ("seed: 1\nstages: [{users: 1, duration: 1s}]", "s.yaml: warmup: 2 s must be shorter than the stages (1 s)"),
        ("seed: 1\ntls: true\nclock: virtual", "s.yaml:2: tls: needs the real clock"),
        (
            "thresholds: ['count > 1 where link=lan']",
            "s.yaml:1: thresholds: 'count > 1 where link=lan': no variant has",
        ),
        ("link: nowhere", "s.yaml:1: link: unknown link 'nowhere'"),
        ("link: {rtt: 5mbit}", "s.yaml:1: link.rtt: expected a time with a unit"),
        ("link: {latency: 5ms}", "s.yaml:1: link.latency: ambiguous"),
        ("connections: double", "s.yaml:1: connections: expected one of: single, standby, redundant"),
        ("rooms: 0", "s.yaml:1: rooms: expected a whole number >= 1"),
        ("rooms: 1025", "s.yaml:1: rooms: expected a whole number <= 1024"),
        ("rooms: tea", "s.yaml:1: rooms: expected a whole number"),
        ("server: here", "s.yaml:1: server: expected 'embedded' or HOST:PORT"),
        ("server: a:1\nlink: {primary: lan, secondary: lan}", "s.yaml:2: link: there is one way to a server elsewhere"),
        ("messages: {rate: 0/s}", "s.yaml:1: messages: rate and ramp_to must be above 0/s"),
        ("messages: {size: 8193B}", "s.yaml:1: messages: size must be from 1B to 8192B, the texts that a server"),
        ("files: {size: 1025MiB}", "s.yaml:1: files: size must be at most 1024MiB"),
        ("messages: {size: 0B}", "s.yaml:1: messages: size must be from 1B to 8192B, the texts that a server accepts"),
        (f"warmup: {'9' * 400}s", "s.yaml:1: warmup: too large; expected a time with a unit"),
        (
            f"stages: [{{users: 3, duration: 1{'0' * 300}s}}]",
            "s.yaml:1: stages.0.duration: too large; expected a time with a unit",
        ),
        (f"messages: {{rate: 1{'0' * 300}/s}}", "s.yaml:1: messages.rate: too large; expected a rate of events"),
        (f"messages: {{size: 1{'0' * 400}B}}", "s.yaml:1: messages.size: too large; expected a size with a unit"),
        ("stages: [{users: 3, duration: 0.1s}]", "s.yaml:1: stages.0: duration must be at least 1s"),
        ("vary: {messages.rate: [1/s, 2]}", "s.yaml:1: vary.messages.rate: messages.rate: expected a rate of events"),
        ("vary: {link: []}", "s.yaml:1: vary.link: expected a list with at least one value"),
        ("vary: {link: [lan, lan]}", "s.yaml:1: vary.link: 'lan' is there twice"),
        ("vary: {link: [{rtt: 2ms}, lan, {rtt: 2ms}]}", "s.yaml:1: vary.link: '{rtt: 2ms}' is there twice"),
        (
            "vary: {messages.rate: [60/min, 2/s, 1/s]}",
            "s.yaml:1: vary.messages.rate: 60/min and 1/s run the same; expec",
        ),
        ("vary: {link.rtt: [1ms], link: [lan]}", "s.yaml:1: vary.link.rtt: a value of vary.link replaces it"),
        ("vary: {messages: [{}], messages.size: [1B]}", "s.yaml:1: vary.messages.size: a value of vary.messages rep"),
        ("vary: {repetitions: [1, 2]}", "s.yaml:1: vary.repetitions: all variants have the same; allowed: any key but"),
        ("vary: {repeat: [1, 2]}", "s.yaml:1: vary.repeat: all variants have the same"),
        ("vary: {thresholds.0: [lost == 0]}", "s.yaml:1: vary.thresholds.0: all variants have the same"),
        ("vary: {vary.link: [[lan]]}", "s.yaml:1: vary.vary.link: all variants have the same"),
        ("vary: {description: [a, b]}", "s.yaml:1: vary.description: all variants have the same"),
        (
            "stages: [{users: 5, duration: 5s}]\nvary: {users.BroadcastUser: [2, 10]}",
            "s.yaml:2: vary.users.BroadcastUser: 2 and 10 run the same: beside "
            "stages, which say how many, users are shares; allowed: shares that differ, or vary stages.0.users",
        ),
        (
            "stages: [{users: 6, duration: 5s}]\nrooms: 2\nvary:\n  rooms: [1, 2]\n"
            "  users: [{BroadcastUser: 2, PrivateUser: 1}, {PrivateUser: 2, BroadcastUser: 4}]",
            "s.yaml:5: vary.users: {BroadcastUser: 2, PrivateUser: 1} and {PrivateUser: 2, BroadcastUser: 4} run the ",
        ),
        ("vary: {files: [{size: 1kB}]}", "s.yaml:1: vary.files: the summary has a column files; vary what is in it"),
    ],
)
def test_errors_name_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(parse(text))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "vary: {users.BroadcastUser: [2, 10]}",
        "stages: [{users: 6, duration: 5s}]\nusers: {PrivateUser: 1}\nvary: {users.BroadcastUser: [2, 10]}",
        "vary: {stages: [[{users: 2, duration: 5s}], [{users: 10, duration: 5s}]]}",
    ],
)
def test_users_are_varied_by_their_number_by_their_shares_or_by_the_stages(text: str) -> None:
    assert len(plan(parse(text))) == 2


def test_an_unknown_scenario_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no such scenario; allowed: .*demo"):
        read_document("dmeo")


def test_user_classes_of_scenarios_are_those_of_locust() -> None:
    source = (Path(__file__).parents[2] / "loadtests" / "load" / "users.py").read_text()
    assert {f"class {name}(ChatUser)" for name in get_args(UserClass)} == {
        line.removesuffix(":") for line in source.splitlines() if line.endswith("(ChatUser):")
    }


def test_matrix_is_interleaved_seeded_and_complete() -> None:
    text = "vary: {link: [lan, satellite], connections: [single, redundant]}\nrepetitions: 3\nseed: 7"
    trials = plan(parse(text))
    assert [trial.number for trial in trials] == list(range(1, 13))
    for repetition in range(3):
        block = trials[4 * repetition : 4 * repetition + 4]
        assert {trial.repetition for trial in block} == {repetition + 1}
        assert {trial.name for trial in block} == {
            "lan single",
            "lan redundant",
            "satellite single",
            "satellite redundant",
        }
        assert len({trial.seed for trial in block}) == 1, "variants of a repetition face the same schedule"
    assert [trial.name for trial in trials] == [trial.name for trial in plan(parse(text))]
    orders = {tuple(trial.name for trial in plan(parse(text.replace("seed: 7", f"seed: {seed}")))) for seed in range(9)}
    assert len(orders) > 1


def test_variants_may_sweep_any_field() -> None:
    trials = plan(parse("link: {rtt: 40ms}\nvary: {link.loss: [0%, 2%]}"))
    assert {trial.links["primary"].up.loss for trial in trials} == {0.0, 0.02}
    trials = plan(parse("vary: {rooms: [1, 5]}"))
    assert {trial.scenario.rooms for trial in trials} == {1, 5}


@pytest.mark.parametrize("arrival", ["constant", "poisson"])
def test_schedule_is_absolute_and_has_the_rate(arrival: str) -> None:
    due = list(itertools.islice(intended_times(arrival, Ramp(50, 50, 10), 1, 10**9, random.Random(1)), 5000))
    assert due == sorted(due)
    assert due[0] >= 10**9
    assert (due[-1] - due[0]) / 4999 == pytest.approx(20e6, rel=0.05)


def test_poisson_gaps_are_exponential_and_constant_gaps_are_equal() -> None:
    gaps = {}
    for arrival in ("constant", "poisson"):
        due = list(itertools.islice(intended_times(arrival, Ramp(50, 50, 10), 1, 0, random.Random(1)), 5000))
        gaps[arrival] = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert max(gaps["constant"]) - min(gaps["constant"]) <= 2
    mean = sum(gaps["poisson"]) / len(gaps["poisson"])
    variance = sum((gap - mean) ** 2 for gap in gaps["poisson"]) / len(gaps["poisson"])
    assert variance**0.5 / mean == pytest.approx(1.0, rel=0.05)


def test_constant_users_are_not_in_step() -> None:
    firsts = {next(intended_times("constant", Ramp(1, 1, 10), 1, 0, random.Random(f"1/{user}"))) for user in range(20)}
    assert len(firsts) == 20


@pytest.mark.parametrize("arrival", ["constant", "poisson"])
def test_bursts_keep_the_mean_rate(arrival: str) -> None:
    due = list(itertools.islice(intended_times(arrival, Ramp(50, 50, 10), 5, 0, random.Random(1)), 5000))
    assert [len(list(group)) for _, group in itertools.groupby(due)] == [5] * 1000
    assert due[-1] / 5000 == pytest.approx(20e6, rel=0.1)


@pytest.mark.parametrize(("first", "last"), [(10, 90), (90, 10)])
def test_a_ramp_changes_the_rate_in_a_straight_line(first: int, last: int) -> None:
    times_s = [
        due / 1e9
        for due in itertools.islice(intended_times("constant", Ramp(first, last, 10), 1, 0, random.Random(1)), 1500)
    ]
    per_second = [sum(second <= time < second + 1 for time in times_s) for second in range(12)]
    slope = (last - first) / 10
    for second, count in enumerate(per_second):
        expected = first + slope * (second + 0.5) if second < 10 else last
        assert abs(count - expected) <= 1.5, (second, per_second)


@pytest.mark.parametrize("late_s", [0, 5, 19, 25])
def test_whoever_comes_late_reaches_the_ramps_end_with_all_others(late_s: int) -> None:
    ramp = Ramp(10, 90, 20).left_after(late_s)
    due_ns = intended_times("constant", ramp, 1, late_s * 10**9, random.Random(1))
    times_s = [due / 1e9 for due in itertools.takewhile(lambda due: due < 30e9, due_ns)]
    for second in range(late_s, 30):
        expected = 10 + 4 * (second + 0.5) if second < 20 else 90
        assert abs(sum(second <= time < second + 1 for time in times_s) - expected) <= 1.5, second


def test_a_closed_workload_has_no_schedule() -> None:
    with pytest.raises(ConfigError, match="closed workload, which has no schedule"):
        decode(parse("messages: {think_time: 1s, burst: 3}"))
