"""Comparison of variants: the unit is the trial, and a true difference is told from none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from test_stats import message, write_run

from loadtests.analysis.compare import METRICS, Comparison, compare_runs, compare_within, judged, per_trial
from loadtests.analysis.guard import Guard, broken
from loadtests.analysis.read import Run
from loadtests.analysis.shift import holm, paired, unpaired
from loadtests.cli import main
from loadtests.errors import HarnessError
from loadtests.run.manifest import MachineFacts

SAMPLE = st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=9, unique=True).map(np.array)


def run_of(folder: Path, seed: int, *levels: float, trials: int = 10, messages: int = 50, lost: int = 0) -> Run:
    """So many trials of each level: the trial has its luck, its messages vary around it; B's last ones are lost."""
    rng = np.random.default_rng(seed)
    variants = [{"link": f"level{number}"} for number in range(len(levels)) for _ in range(trials)]
    rows = []
    for number, variant in enumerate(variants, 1):
        level = int(variant["link"].removeprefix("level"))
        luck = levels[level] + rng.normal(0, 1)
        times = [float(value) for value in luck + rng.normal(0, 5, messages)]
        for place, value in enumerate(times):
            is_lost = level == len(levels) - 1 and place < lost
            row = message(number, None if is_lost else value, outcome="lost" if is_lost else "echoed")
            rows.append(row | {"intended_s": 2 + place / 10, "echoed_s": None if is_lost else 2 + place / 10})
    return write_run(folder, {"messages": rows}, variants, repetitions=[n % trials + 1 for n in range(len(variants))])


def of(table: list[Comparison], metric: str = "p50_ms") -> Comparison:
    return next(one for one in table if one.metric == metric)


@pytest.fixture(scope="module")
def scipy_stats() -> Any:
    """Not in every worker that collects this file: it takes long to import."""
    from scipy import stats

    return stats


@given(SAMPLE, SAMPLE)
def test_the_unpaired_test_is_mann_and_whitneys(scipy_stats: Any, a: Any, b: Any) -> None:
    if not np.intersect1d(a, b).size:
        assert unpaired(a, b).p_value == pytest.approx(scipy_stats.mannwhitneyu(a, b, method="exact").pvalue)


@given(SAMPLE)
def test_the_paired_test_is_wilcoxons(scipy_stats: Any, steps: Any) -> None:
    if 0 not in steps and np.unique(np.abs(steps)).size == steps.size:
        found = paired(np.zeros(len(steps)), steps)
        assert found.p_value == pytest.approx(scipy_stats.wilcoxon(steps, method="exact").pvalue)


@given(SAMPLE, SAMPLE, st.floats(-50, 50))
def test_intervals_move_with_the_shift_and_hold_the_estimate(a: Any, b: Any, shift: float) -> None:
    here, there = unpaired(a, b), unpaired(a, b + shift)
    assert here.low <= here.estimate <= here.high
    assert there.estimate == pytest.approx(here.estimate + shift, abs=1e-6)
    assert there.low == pytest.approx(here.low + shift, abs=1e-6)


def test_hodges_lehmann_is_the_median_of_all_differences() -> None:
    assert unpaired(np.array([1.0, 2.0]), np.array([4.0, 8.0])).estimate == 4.5


def test_infinite_values_count_as_equal() -> None:
    assert unpaired(np.full(5, np.inf), np.full(5, np.inf)).p_value == 1
    worse = unpaired(np.arange(5.0), np.full(5, np.inf))
    assert (worse.estimate, worse.p_value) == (np.inf, pytest.approx(2 / 252))


def test_holm_multiplies_the_smallest_by_the_number_of_tests() -> None:
    assert holm(np.array([0.04, np.nan, 0.01, 0.03])) == pytest.approx([0.06, np.nan, 0.03, 0.06], nan_ok=True)


def test_a_true_difference_is_found_with_its_size(tmp_path: Path) -> None:
    found = of(compare_within(run_of(tmp_path, 1, 50, 60), "link"))
    assert (found.verdict, found.is_paired) == ("worse", True)
    assert found.difference.low < 10 < found.difference.high
    assert found.ratio.low < 1.2 < found.ratio.high


def test_the_same_is_equivalent_within_the_margin(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1, 50, 50)
    assert of(compare_within(run, "link", margin=0.10)).verdict == "equivalent"
    undecided = of(compare_within(run, "link", margin=0.0001))
    assert undecided.verdict == "undecided"
    assert "trials" in undecided.note


def shifted(count: int, ratio: float = 1.1) -> Comparison:
    """A p99 that is so much higher in each pair, more or less: what differs has a deviation of 14 % in logs."""
    normal = ndtri((np.arange(count) + 0.5) / count) * 0.141
    a = trials_of([100.0] * count)
    b = trials_of(list(100.0 * ratio * np.exp(normal)))
    rng = np.random.default_rng(1)  # every metric varies, so that Holm adjusts for seven
    for each in (a, b):
        for metric in METRICS:
            if metric != "p99_ms":
                each[metric] = rng.uniform(0.01, 0.02, count)
    return of(judged([("b against a", a, b)], 0.05, may_pair=True), "p99_ms")


def test_the_trials_that_would_decide_are_told_and_do_decide() -> None:
    """Seven metrics are tested at once: it takes 2.69 + 0.84 standard errors (Holm's first level, power of 80 %)."""
    told = shifted(10)
    assert told.verdict == "undecided"
    number = int(told.note.split()[1])
    assert number == pytest.approx((3.53 * 0.141 / np.log(1.1)) ** 2, abs=3)
    assert shifted(number).verdict == "worse"


def test_no_fewer_trials_are_told_than_the_exact_test_needs() -> None:
    """Six pairs cannot fall below 2 / 2^6, however large the shift; of seven tests at once one needs nine."""
    told = shifted(6, ratio=1.5)
    assert (told.verdict, told.note) == ("undecided", "about 9 trials would decide")


def test_across_runs_nothing_is_paired(tmp_path: Path) -> None:
    a, b = (run_of(tmp_path / str(level), level, level) for level in (50, 60))
    assert not any(one.is_paired for one in compare_runs(a, b))


@pytest.mark.parametrize(
    ("b_ms", "busy", "verdict", "code"),
    [
        (2.1, (MachineFacts(), MachineFacts()), "worse", 1),
        (2.1, (MachineFacts(), MachineFacts(stalled_share=0.4)), "undecided", 0),
        (2.1, (MachineFacts(others_percent={"chrome": 97.0}), MachineFacts()), "undecided", 0),
        (2.1, (MachineFacts(stalled_share=0.4), MachineFacts(others_percent={"neighbour": 80.0})), "worse", 1),
        (2.3, (MachineFacts(), MachineFacts(stalled_share=0.4)), "worse", 1),
    ],
)
def test_a_machine_that_was_busier_may_be_a_small_difference(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    b_ms: float,
    busy: tuple[MachineFacts, MachineFacts],
    verdict: str,
    code: int,
) -> None:
    """0.1 ms of 2 ms is more than the margin, and beyond the guard; 0.3 ms is more than any core does."""
    runs = []
    for name, level_ms, machine in zip("ab", (2.0, b_ms), busy, strict=True):
        rows = [
            message(trial, level_ms + trial / 1000) | {"intended_s": place / 10}
            for trial in range(1, 7)
            for place in range(50)
        ]
        run = write_run(tmp_path / name, {"messages": rows}, [{"link": "lan"}] * 6)
        run.manifest.cores = 2
        for trial in run.manifest.trials:
            trial.machine = machine
        run.manifest.write(run.path)
        runs.append(run.path)
    assert main(["compare", "--force", "--json", *map(str, runs), "--fail-if", "p50 > +1%"]) == code
    found = json.loads(capsys.readouterr().out.partition("FAILED")[0])
    assert next(one["verdict"] for one in found if one["metric"] == "p50_ms") == verdict


def test_what_one_run_alone_has_measured_is_not_compared_and_said(tmp_path: Path, capsys: Any) -> None:
    """Whichever it is: a variant of which nothing is known has no medians."""
    whole, part = run_of(tmp_path / "whole", 1, 50, 60), run_of(tmp_path / "part", 1, 50, 60)
    rows = pd.read_csv(part.path / "messages.csv")
    rows[rows["trial"] <= 10].to_csv(part.path / "messages.csv", index=False)
    for runs in ([whole, part], [part, whole]):
        assert main(["compare", "--force", "--json", *(str(run.path) for run in runs)]) == 0
        printed = capsys.readouterr()
        assert {one["name"] for one in json.loads(printed.out)} == {"level0"}
        assert printed.err == "note: not compared, as one of the runs has not measured it: level1\n"


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1, 50, 60)
    with pytest.raises(HarnessError, match="the run is given twice"):
        compare_runs(run, Run(tmp_path / ".." / tmp_path.name))


def test_whoever_loses_messages_is_never_better(tmp_path: Path) -> None:
    """Half as long, but one in ten lost."""
    table = compare_within(run_of(tmp_path, 1, 50, 25, lost=5), "link")
    assert of(table).note == "it answers fewer messages"
    assert "better" not in [one.verdict for one in table]
    assert of(table, "lost_share").verdict == "worse"
    assert of(table, "goodput_per_s").verdict == "worse"


def test_a_percentile_of_a_few_messages_is_not_told(tmp_path: Path) -> None:
    found = of(compare_within(run_of(tmp_path, 1, 50, 60), "link"), "p99_ms")
    assert (found.verdict, found.note) == ("too few", "50 messages in a trial; it takes 1000")


def goodput_of(folder: Path, times_s: list[tuple[float, float | None]], state: str = "finished", **facts: Any) -> float:
    """Of messages that were due and answered at these times; 2 s of warm-up, then 10 s of load, if nothing is said."""
    variant = {"link": "lan"} | facts.pop("variant", {})
    rows = [
        message(1, 1.0, outcome="lost" if echoed_s is None else "echoed", warmup=int(intended_s < 2))
        | {"intended_s": intended_s, "echoed_s": echoed_s}
        | facts
        for intended_s, echoed_s in times_s
    ]
    run = write_run(folder, {"messages": rows}, [variant])
    run.manifest.trials[0].state = state
    run.manifest.write(folder)
    return float(per_trial(Run(folder))["goodput_per_s"].iloc[0])


@pytest.mark.parametrize("burst", [1, 10])
def test_goodput_is_the_same_in_bursts(tmp_path: Path, burst: int) -> None:
    """Ten bursts of ten in ten seconds, or a message each tenth of a second."""
    due_s = [2 + number // burst * burst / 10 for number in range(100)]
    assert goodput_of(tmp_path, [(at_s, at_s + 0.01) for at_s in due_s]) == 10


def test_goodput_is_what_passes_in_the_time_of_the_load(tmp_path: Path) -> None:
    """Twenty messages a second, of which two are answered: those of the warm-up first, the last ones after the load."""
    assert goodput_of(tmp_path, [(number / 20, number / 2) for number in range(240)]) == 2


def test_to_leave_out_what_the_machine_disturbed_is_not_to_answer_less(tmp_path: Path) -> None:
    times_s: list[tuple[float, float | None]] = [(2 + number / 10, 2.01 + number / 10) for number in range(50)]
    run = [message(1, 1.0) | {"intended_s": due_s, "echoed_s": at_s, "disturbed": 1} for due_s, at_s in times_s[1:]]
    first = message(1, 1.0) | {"intended_s": 2.0, "echoed_s": 2.01}
    assert per_trial(write_run(tmp_path, {"messages": [first, *run]}, [{"link": "lan"}]))["goodput_per_s"].tolist() == [
        5
    ]


@pytest.mark.parametrize(
    ("state", "goodput"), [("finished", 2.0), ("interrupted", 5.0), ("cut short: worker 1 died", 5.0)]
)
def test_goodput_of_a_trial_that_was_cut_short_is_of_the_time_until_then(
    tmp_path: Path, state: str, goodput: float
) -> None:
    """Five answers a second; the last message is due after four, and what comes later is not counted."""
    times_s: list[tuple[float, float | None]] = [(2.0, 2.1 + number / 5) for number in range(20)]
    assert goodput_of(tmp_path, [*times_s, (6.0, None)], state) == pytest.approx(goodput)


def test_goodput_follows_a_varied_warmup_and_load(tmp_path: Path) -> None:
    times_s: list[tuple[float, float | None]] = [(number / 10, 0.01 + number / 10) for number in range(200)]
    variant = {"warmup": "5s", "stages": "[{users: 5, duration: 10s}, {users: 9, duration: 5s}]"}
    assert goodput_of(tmp_path, times_s[60:], variant=variant) == pytest.approx(9)


def test_a_run_that_does_not_say_how_long_its_load_was_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"run\.json: warmup: expected a time with a unit"):
        goodput_of(tmp_path, [(3.0, 3.1)], variant={"warmup": "long"})


@pytest.mark.parametrize("form", ["", "--json", "--markdown"])
def test_the_command_prints_writes_a_page_and_guards(tmp_path: Path, capsys: Any, form: str) -> None:
    run, file = run_of(tmp_path, 1, 50, 60, lost=0), tmp_path / "page.html"
    options = [str(run.path), "--by", "link", "--force", "--html", str(file), "--fail-if", "p50 > +10%"]
    assert main(["compare", *options, *([form] if form else [])]) == 1
    printed, failed = capsys.readouterr().out.rsplit("FAILED: ", 1)
    assert failed.startswith("p50 > +10%: level1 against level0")
    if form == "--json":
        assert {one["verdict"] for one in json.loads(printed)} >= {"worse", "too few"}
    text = file.read_text()
    assert text.count("<img") == text.count('alt="Ratio of response times') == 1


def test_too_few_trials_decide_nothing(tmp_path: Path) -> None:
    table = compare_within(run_of(tmp_path, 1, 50, 500, trials=3), "link")
    assert {one.verdict for one in table} == {"too few"}


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1, 50, 60, trials=1)
    with pytest.raises(HarnessError, match="did not vary 'connections'; it varied: link"):
        compare_within(run, "connections")
    with pytest.raises(HarnessError, match="nothing can be compared by link: no two of its values have been measured"):
        compare_within(run_of(tmp_path / "one", 1, 50), "link")


def trials_of(p99_ms: list[float]) -> pd.DataFrame:
    facts = dict.fromkeys(METRICS, 1.0) | {"lost_share": 0.0, "refused_share": 0.0, "waited": 5000}
    return pd.DataFrame([facts | {"p99_ms": v, "repetition": n} for n, v in enumerate(p99_ms)])


@pytest.mark.parametrize(("text", "failures"), [("p99 > +10%", 1), ("p99 > +30%", 0), ("p99 < -5%", 0)])
def test_a_guard_is_broken_by_a_change_beyond_it(text: str, failures: int) -> None:
    a = [100.0 + n for n in range(10)]
    table = judged([("b against a", trials_of(a), trials_of([1.2 * v for v in a]))], 0.05, may_pair=True)
    assert len(broken([Guard.parse(text)], table)) == failures


def test_a_guard_pays_for_what_it_asks_alone() -> None:
    """Six pairs reach 3 % at best: enough for one question, however many more the comparison answers."""
    a = trials_of([100.0 + n for n in range(6)])
    b = a.assign(p99_ms=1.2 * a["p99_ms"], p50_ms=1 + a["repetition"] / 100, p95_ms=1 - a["repetition"] / 100)
    p99, p50 = Guard.parse("p99 > +10%"), Guard.parse("p50 > +10%")
    table = judged([("b against a", a, b)], 0.05, may_pair=True)
    assert next(one for one in table if one.metric == "p99_ms").verdict == "undecided"
    assert len(broken([p99], table)) == 1
    with pytest.raises(HarnessError, match="6 trials; to guard 2 comparisons at once takes 7"):
        broken([p99, p50], table)


@pytest.mark.parametrize("text", ["p98 > +1%", "p99 > 10", "p99"])
def test_a_guard_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(HarnessError, match="metrics: p50, p95, p99"):
        Guard.parse(text)


def test_a_guard_that_cannot_see_is_refused() -> None:
    table = judged([("b against a", trials_of([1.0] * 3), trials_of([2.0] * 3))], 0.05, may_pair=True)
    with pytest.raises(HarnessError, match="3 trials; it takes 4"):
        broken([Guard.parse("p99 > +10%")], table)


@pytest.mark.parametrize(("before", "after", "guard"), [(20, 0, "goodput < -10%"), (0, 20, "goodput > +10%")])
def test_a_guard_sees_that_nothing_was_answered(before: float, after: float, guard: str) -> None:
    """A goodput of 0 has no ratio to another."""
    one = trials_of([100.0 + n for n in range(10)])
    a, b = (one.assign(goodput_per_s=rate * (1 + one["repetition"] / 1000)) for rate in (before, after))
    assert len(broken([Guard.parse(guard)], judged([("b against a", a, b)], 0.05, may_pair=True))) == 1
