"""The real `tc netem`, in user-mode Linux: a kernel that has it, as an ordinary process of this one."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from left_out import NETEM_FILES
from link_helpers import run_in_uml

#: An area of its own: CI fails if this one came to no verdict. The emulator's tests, which are of the links too, would
#: hide that the real netem ran nowhere.
pytestmark = pytest.mark.realtime("netem")


@pytest.mark.timeout(400)
def test_netem_keeps_the_contract_of_a_backend(tmp_path: Path) -> None:
    """Every test with netem in its name passes, and none is skipped; `auto` chooses netem there."""
    results = tmp_path / "results.xml"
    options = ["-q", "-k", "netem", "-p", "no:cacheprovider", "-p", "no:locust", f"--junit-xml={results}"]
    code, output = run_in_uml([sys.executable, "-m", "pytest", *NETEM_FILES, *options], tmp_path, timeout_s=380)
    assert code == 0, output
    suite = ET.parse(results).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) > 5
    assert suite.attrib["skipped"] == "0", output
