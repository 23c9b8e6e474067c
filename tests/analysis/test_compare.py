"""Comparison of variants: the unit is the trial, and a true difference is told from none."""

from pathlib import Path

import numpy as np
import pytest
from test_stats import message, write_run

from loadtests.analysis.compare import compare_runs, compare_within, hodges_lehmann
from loadtests.analysis.read import Run


def run_of(folder: Path, seed: int, *levels: float, trials: int = 10) -> Run:
    """Ten trials of each level: the trial has its luck, its messages vary around it."""
    rng = np.random.default_rng(seed)
    variants = [{"link": f"level{number}"} for number in range(len(levels)) for _ in range(trials)]
    messages = []
    for number, variant in enumerate(variants, 1):
        luck = levels[int(variant["link"].removeprefix("level"))] + rng.normal(0, 1)
        messages += [message(number, float(luck + rng.normal(0, 5))) for _ in range(50)]
    return write_run(folder, {"messages": messages}, variants)


def test_hodges_lehmann_is_the_median_of_all_differences() -> None:
    assert hodges_lehmann(np.array([1.0, 2.0]), np.array([4.0, 8.0])) == 4.5


def test_a_true_difference_is_found_with_its_size(tmp_path: Path) -> None:
    table = compare_within(run_of(tmp_path, 1, 50, 60), "link").set_index("metric")
    assert table.loc["p50_ms", "verdict"] == "different"
    assert table.loc["p50_ms", "low"] < 10 < table.loc["p50_ms", "high"]


def test_false_positives_are_as_rare_as_promised(tmp_path: Path) -> None:
    """Twenty A/A comparisons: at a level of 5 %, four or more would happen once in sixty times; the seed is fixed."""
    found = 0
    for seed in range(20):
        a, b = (run_of(tmp_path / f"{seed}{side}", seed * 2 + side, 50) for side in (0, 1))
        found += (compare_runs(a, b).set_index("metric").loc["p50_ms", "verdict"]) == "different"
    assert found <= 3


def test_too_few_trials_decide_nothing(tmp_path: Path) -> None:
    table = compare_within(run_of(tmp_path, 1, 50, 500, trials=3), "link")
    assert set(table["verdict"]) == {"too few trials"}


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1, 50, 60, trials=1)
    with pytest.raises(ValueError, match="did not vary 'connections'; it varied: link"):
        compare_within(run, "connections")
