"""CI leaves out only what runs in another way."""

import os
from pathlib import Path

import pytest
from left_out import RUN_ELSEWHERE

HERE = Path(__file__).parent
TESTS = """
import pytest
from left_out import RUN_ELSEWHERE

@pytest.mark.skipif(True, reason="no Chromium here")
def test_by_mark():
    pass

@pytest.fixture
def program():
    pytest.skip("this system lets us mount nothing")

def test_by_fixture(program):
    pass

@pytest.mark.parametrize("reason", RUN_ELSEWHERE)
def test_elsewhere(reason):
    pytest.skip(reason)
"""


@pytest.mark.parametrize("ci", [False, True])
def test_in_ci_a_skip_is_a_failure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: bool) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("CI", "true" if ci else "")
    pytester.makeconftest('pytest_plugins = ["left_out"]')
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rE")
    elsewhere = len(RUN_ELSEWHERE)
    done.assert_outcomes(errors=2 if ci else 0, skipped=elsewhere if ci else elsewhere + 2)
    assert ("left out in CI: this system lets us mount nothing" in done.stdout.str()) == ci
