"""CI leaves out only what runs in another way."""

import os
from pathlib import Path

import pytest
from left_out import NO_NETEM, TAKES_MINUTES, runs_elsewhere

HERE = Path(__file__).parent
TESTS = f"""
import pytest

@pytest.mark.skipif(True, reason="no Chromium here")
def test_by_mark():
    pass

@pytest.fixture
def program():
    pytest.skip("this system lets us mount nothing")

def test_by_fixture(program):
    pass

def test_that_nobody_else_runs():
    pytest.skip({TAKES_MINUTES!r})
"""


@pytest.mark.parametrize("ci", [False, True])
def test_in_ci_a_skip_is_a_failure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: bool) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("CI", "true" if ci else "")
    pytester.makeconftest('pytest_plugins = ["left_out"]')
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rE")
    done.assert_outcomes(errors=2, failed=1) if ci else done.assert_outcomes(skipped=3)
    assert ("left out in CI: this system lets us mount nothing" in done.stdout.str()) == ci


@pytest.mark.parametrize(
    ("nodeid", "reason", "expected"),
    [
        ("tests/link/test_link_backends.py::test_tcp_gets_the_rate[netem]", NO_NETEM, True),
        ("tests/link/test_link_backends.py::test_tcp_gets_the_rate[emulator]", NO_NETEM, False),
        ("tests/run/test_run.py::test_a_run_by_netem", NO_NETEM, False),
        ("tests/clock/test_agreement.py::test_medians", TAKES_MINUTES, True),
        ("tests/chat/test_chat_chaos.py::test_chaos", TAKES_MINUTES, False),
        ("tests/clock/test_agreement.py::test_medians", "not built yet: chatlab clock build", False),
    ],
)
def test_only_who_is_run_in_another_way_is_excused(nodeid: str, reason: str, expected: bool) -> None:
    assert runs_elsewhere(nodeid, reason) == expected
