"""Tests that depend on real time fail only undisturbed; and what counts as a disturbance."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from disturbance import Moment, Process, disturbance, present_moment

from loadtests.stalls.meter import Stall, StallMeter

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
#: A session of its own that is disturbed as often as the file `disturbances` has lines, one each time it asks.
CONFTEST = """
import undisturbed
from pathlib import Path

pytest_plugins = ["undisturbed"]

def told(*_):
    file = Path(__file__).with_name("disturbances")
    first, *rest = file.read_text().splitlines() or [None]
    file.write_text("\\n".join(rest))
    return first

undisturbed.disturbance = told
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest(CONFTEST)
    return pytester


def run(session: pytest.Pytester, body: str, disturbances: str, *options: str) -> pytest.RunResult:
    """The result of a file of tests, each of which may use `tries`: how often its fixture was made."""
    session.path.joinpath("disturbances").write_text(disturbances)
    session.makepyfile(f"""
import pytest
made = []

@pytest.fixture(scope="module")
def tries():
    made.append(1)
    return len(made)

{body}
""")
    return session.runpytest_subprocess("-p", "no:cacheprovider", "-ra", *options)


FAILS_TWICE = """
@pytest.mark.realtime("links")
def test_a(tries):
    assert tries == 3
"""
ALWAYS_FAILS = FAILS_TWICE.replace("3", "0")


def test_what_failed_disturbed_is_run_again_with_new_fixtures(session: pytest.Pytester) -> None:
    result = run(session, FAILS_TWICE, "stalls\nneighbour")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*tests that were disturbed*", "*::test_a: passed at last; stalls; then neighbour"])


def test_what_failed_undisturbed_fails(session: pytest.Pytester) -> None:
    run(session, FAILS_TWICE, "").assert_outcomes(failed=1)
    result = run(session, FAILS_TWICE, "stalls")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*::test_a: failed; stalls"])


def test_what_was_never_undisturbed_is_skipped_and_says_why(session: pytest.Pytester) -> None:
    result = run(session, ALWAYS_FAILS, "1\n2\n3\n4")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * failed 4 times, each time disturbed: 4; at last: assert 4 == 0"])
    assert result.ret == pytest.ExitCode.OK


def test_a_fixture_that_failed_is_made_again(session: pytest.Pytester) -> None:
    body = """
@pytest.fixture(scope="module")
def run(tries):
    assert tries == 2
    yield
    assert tries == 2

@pytest.mark.realtime("runs")
def test_a(run): pass

def test_b(tries): assert tries == 1
"""
    run(session, body, "stalls").assert_outcomes(passed=2)
    run(session, body, "").assert_outcomes(errors=1, passed=1)


def test_what_was_disturbed_waits_for_all_others(session: pytest.Pytester) -> None:
    session.makepyfile(test_others="def test_c(): pass")
    result = run(session, FAILS_TWICE.replace("3", "2") + "\ndef test_b(tries): assert tries == 1\n", "stalls", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*::test_a RERUN*", "*::test_b PASSED*", "*::test_c PASSED*", "*::test_a PASSED*"])


def test_what_takes_long_begins_early(session: pytest.Pytester) -> None:
    marks = {"a": "skip", "b": "long", "c": 'realtime("chat")', "d": 'realtime("runs")', "e": "timeout(9)"}
    for name, mark in marks.items():
        session.makepyfile(**{f"test_{name}": f"import pytest\n\n@pytest.mark.{mark}\ndef test_it(): pass"})
    listing = session.runpytest_subprocess("-p", "no:cacheprovider", "--collect-only", "-q").outlines
    assert [line[:6] for line in listing if "::" in line] == ["test_e", "test_d", "test_b", "test_a", "test_c"]


def test_other_tests_and_mistakes_fail_at_once(session: pytest.Pytester) -> None:
    run(session, "def test_a(): assert False", "stalls").assert_outcomes(failed=1)
    mistake = FAILS_TWICE.replace("assert tries", "assert trials")
    run(session, mistake, "stalls").assert_outcomes(failed=1)


@pytest.mark.parametrize(("waiting", "outcome"), [("pass", "failed"), ("socket.socket().close()", "skipped")])
def test_what_waits_for_nothing_fails_at_once(session: pytest.Pytester, waiting: str, outcome: str) -> None:
    body = f"""
import socket

@pytest.mark.realtime("chat")
def test_a(tmp_path):
    {waiting}
    assert False
"""
    run(session, body, "1\n2\n3\n4").assert_outcomes(**{outcome: 1})


def test_what_a_failure_left_open_fails_nobody_else(session: pytest.Pytester) -> None:
    body = """
import gc, socket

@pytest.mark.realtime("chat")
def test_a(tries):
    left_open = socket.socket()
    assert tries == 2
    left_open.close()

def test_b():
    gc.collect()
"""
    strict = [f"-Werror::{kind}" for kind in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning")]
    run(session, body, "stalls", *strict).assert_outcomes(passed=2)


def test_beside_other_workers_it_is_run_again_alone_first(session: pytest.Pytester) -> None:
    busy = "@pytest.mark.parametrize('number', range(9))\ndef test_b(number): pass\n"
    result = run(session, FAILS_TWICE + busy, "stalls", "-p", "xdist", "-n", "2")
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["*::test_a: passed at last; other tests ran beside it; then stalls"])
    run(session, FAILS_TWICE + busy, "", "-p", "xdist", "-n", "2").assert_outcomes(passed=9, failed=1)


def test_in_ci_a_whole_area_without_a_verdict_fails(session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    shorter = "import undisturbed\nundisturbed.CI_TRIES_S = 0\n"
    result = run(session, shorter + ALWAYS_FAILS, "1")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["ERROR: no test of the links came to a verdict"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    passing = "@pytest.mark.realtime('links')\ndef test_b(): pass\n"
    result = run(session, shorter + ALWAYS_FAILS + passing, "1")
    result.assert_outcomes(skipped=1, passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_in_ci_there_are_as_many_tries_as_the_time_holds(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    run(session, FAILS_TWICE.replace("3", "9"), "\n".join("12345678")).assert_outcomes(passed=1)


def moment(at_s: float, withheld_s: float = 0.0, **used_s: float) -> Moment:
    """One with the kernel's threads, a process of ours (3) with a child (4), and a stranger (5) in it."""
    parents = {"kthreadd": (2, 0), "kworker": (6, 2), "pytest": (3, 1), "child": (4, 3), "chrome": (5, 1)}
    processes = {pid: Process(parent, name, used_s.get(name, 0.0)) for name, (pid, parent) in parents.items()}
    return Moment(round(at_s * 1e9), withheld_s, sum(used_s.values()), processes)


@pytest.mark.parametrize(
    ("after", "stall_ms", "said"),
    [
        (moment(10.0), 1.5, None),
        (moment(10.0), 40, "stalls of up to 40 ms took 0% of the time"),
        (moment(10.0, withheld_s=9.0), 0, "the host withheld "),
        (moment(10.0, pytest=5.0, child=9.0, kworker=3.0, chrome=0.5), 0, None),
        (moment(10.0, pytest=5.0, chrome=8.5), 0, "other processes used 85% of a core, most of it chrome"),
        (moment(10.0, ended=8.5), 0, "other processes used 85% of a core"),
    ],
)
def test_only_what_is_not_ours_disturbs(after: Moment, stall_ms: float, said: str | None) -> None:
    stalls = [Stall(round(5e9), round(stall_ms * 1e6), 0)] if stall_ms else []
    found = disturbance(moment(0.0), after, stalls, own=3)
    assert found is None if said is None else found is not None and found.startswith(said)


def test_a_stall_before_it_is_none_of_its_business() -> None:
    assert disturbance(moment(8.0), moment(10.0), [Stall(round(5e9), round(1e9), 0)], own=3) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="bursts above everything else need root")
def test_a_noisy_neighbour_is_noticed() -> None:
    with StallMeter() as meter:
        before = present_moment()
        subprocess.run([sys.executable, HERE / "noisy_neighbour.py", "--kind", "bursts", "--seconds", "1"], check=True)
        found = disturbance(before, present_moment(), meter.stalls(), own=os.getpid())
    assert found is not None
    assert found.startswith("stalls of up to ")
