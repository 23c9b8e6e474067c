"""Runs in virtual time, where its kernel has been built (`chatlab clock build`)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from link_helpers import needs_patience

from loadtests.clock.kernel import build, built
from loadtests.clock.verify import difference
from loadtests.errors import HarnessError

SCENARIO = """
clock: virtual
link: wifi-bad
users: {BroadcastUser: 2}
messages: {rate: 2/s, size: 120B}
stages: [{users: 2, spawn_rate: 10/s, duration: 4s}]
"""


def test_the_first_other_row_is_named(tmp_path: Path) -> None:
    """One changed value among equal rows, or a row that is missing, is said with its place."""
    old, new = tmp_path / "messages.csv", tmp_path / "new.csv"
    old.write_text("user,size\n1,120\n2,120\n")
    new.write_text("user,size\n1,120\n2,121\n")
    assert difference(old, new) == ["messages.csv, line 3: was 2,120; is 2,121"]
    new.write_text("user,size\n1,120\n")
    assert difference(old, new) == ["messages.csv, line 3: was 2,120; is (no row)"]
    assert difference(old, old) == []
    assert difference(old, tmp_path / "none.csv") == ["messages.csv: only the run has it"]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(HarnessError, match=r"Not a directory; XDG_CACHE_HOME names another folder"):
        build()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished virtual run."""
    try:
        built()
    except HarnessError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("virtual")
    (folder / "short.yaml").write_text(SCENARIO)
    done = chatlab("run", str(folder / "short.yaml"), "--results", str(folder / "results"))
    assert done.returncode == 0, done.stdout + done.stderr
    return next((folder / "results").iterdir())


def chatlab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "loadtests", *words], capture_output=True, text=True, check=False)


@needs_patience
@pytest.mark.timeout(400)
def test_a_repeated_run_is_equal_to_the_byte(run: Path) -> None:
    done = chatlab("verify", str(run))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "equal: every row of every table"), done.stderr


@needs_patience
@pytest.mark.timeout(400)
def test_a_changed_size_is_found(run: Path, tmp_path: Path) -> None:
    """The size of one message, changed in the table: `verify` names the row."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    rows = (copy / "messages.csv").read_text().splitlines(keepends=True)
    rows[2] = rows[2].replace(",120,", ",121,")
    (copy / "messages.csv").write_text("".join(rows))
    done = chatlab("verify", str(copy))
    assert done.returncode == 1
    assert "messages.csv, line 3: was" in done.stdout


@needs_patience
def test_the_report_names_the_clock(run: Path) -> None:
    """Whoever reads it knows that computing took no time, and sees no figure of CPU."""
    report = (run / "report.html").read_text()
    assert "In virtual time, where computing takes no time" in report
    assert "CPU use over time" not in report
