"""What the machine added to the network's time, from runs whose truth is known."""

from pathlib import Path

import pytest
from test_compare import run_of

from loadtests.analysis import machine_page
from loadtests.analysis.machine_share import machine_shares
from loadtests.analysis.read import Run
from loadtests.errors import HarnessError


def virtual(folder: Path, *levels: float, seed: int = 2) -> Run:
    run = run_of(folder, seed, *levels)
    run.manifest.clock = "virtual"
    return run


def test_what_the_machine_added_is_found_with_its_interval(tmp_path: Path) -> None:
    """40 ms of network and 30 ms of machine; where too few messages tell a percentile, it says so."""
    shares = machine_shares(run_of(tmp_path / "real", 1, 70.0), virtual(tmp_path / "virtual", 40.0))
    median, tail = shares[0], shares[-1]
    assert (median.percentile, median.trials) == ("p50", (10, 10))
    assert median.network_ms == pytest.approx(40, abs=2)
    assert median.machine_ms.low < 30 < median.machine_ms.high
    assert median.holds
    assert (tail.percentile, tail.note) == ("p99.9", "50 messages in a trial; it takes 10000")
    assert "30" in machine_page.rows(shares)[0][5]


def test_runs_that_cannot_be_set_against_each_other(tmp_path: Path) -> None:
    real, other = run_of(tmp_path / "real", 1, 70.0), run_of(tmp_path / "other", 1, 70.0)
    with pytest.raises(HarnessError, match="then one in virtual time; got real and real"):
        machine_shares(real, other)
    other.manifest.clock = "virtual"
    other.manifest.scenario = other.manifest.scenario | {"link": "4g"}
    with pytest.raises(HarnessError, match="the scenarios differ in link"):
        machine_shares(real, other)


def test_the_page_shows_each_variant_with_an_alternative_text(tmp_path: Path) -> None:
    shares = machine_shares(run_of(tmp_path / "real", 1, 70.0, 90.0), virtual(tmp_path / "virtual", 40.0, 60.0))
    machine_page.write_page(tmp_path / "page.html", "a <b>", shares)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 2
    assert "a &lt;b&gt;" in page
    assert 'alt="What network and machine took of the response time, level1: p50 ' in page
