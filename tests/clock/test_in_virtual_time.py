"""Tests that take minutes of real time, or that a busy machine disturbs, on a clock that nothing disturbs."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from link_helpers import needs_patience, run_in_virtual_time

#: What runs there: the full length of every wait; broken connections; sessions that go on.
TESTS = ["tests/clock/patience.py", "tests/chat/test_chat_chaos.py", "tests/chat/test_chat_resume.py"]


@pytest.mark.timeout(900)
@needs_patience
@pytest.mark.parametrize("tests", TESTS)
def test_in_virtual_time(tests: str, tmp_path: Path) -> None:
    """Every test of the file passes, and none is skipped."""
    results = tmp_path / "results.xml"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:locust", f"--junit-xml={results}", "--timeout=0"]
    code, output = run_in_virtual_time([sys.executable, "-m", "pytest", tests, *options], tmp_path, timeout_s=880)
    assert code == 0, output
    suite = ET.parse(results).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) > 2
    assert suite.attrib["skipped"] == "0", output
