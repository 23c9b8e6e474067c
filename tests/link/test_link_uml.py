"""The real `tc netem`, in user-mode Linux: a kernel that has it, as an ordinary process of this one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from disturbance import disturbance, present_moment
from left_out import NETEM_FILES
from link_helpers import PROJECT, run_in_uml

from loadtests.stalls.meter import StallMeter

#: An area of its own: CI fails if this one came to no verdict. The emulator's tests, which are of the links too, would
#: hide that the real netem ran nowhere.
pytestmark = pytest.mark.realtime("netem")

#: Without what these tests do not need: to import it takes long there.
PYTEST = [sys.executable, "-m", "pytest"]
PYTEST += [f"-pno:{plugin}" for plugin in ("cacheprovider", "locust", "hypothesispytest", "anyio")]
#: How often those are run that the machine inside disturbs; where this one is busy too, it is tried another time.
RUNS = 4
RUN_S = 380
#: Also in earlier tries of the test below: what has passed need not be run again.
PASSED: set[str] = set()


@pytest.mark.timeout(RUNS * RUN_S)
def test_netem_keeps_the_contract_of_a_backend(tmp_path: Path) -> None:
    """Every test with netem in its name passes, and none is skipped; `auto` chooses netem there."""
    listing = subprocess.run(
        [*PYTEST, "--collect-only", "-q", "-k", "netem", *NETEM_FILES], cwd=PROJECT, capture_output=True, text=True
    ).stdout
    wanted = re.findall(r"^tests/\S+::.+$", listing, flags=re.MULTILINE)
    assert len(wanted) > 5, listing
    with StallMeter() as meter:
        for number in range(RUNS):
            folder, before = tmp_path / str(number), present_moment()
            folder.mkdir()
            left = [node for node in wanted if node not in PASSED]
            try:
                code, output = run_in_uml(["env", "CHAT_TEST_TRIES=1", *PYTEST, "-v", *left], folder, RUN_S)
            finally:
                for file in folder.glob("output"):  # none if the machine did not start
                    PASSED.update(re.findall(r"^(tests/\S+::.+) PASSED", file.read_text(), flags=re.MULTILINE))
            assert code == 0, output
            if PASSED.issuperset(wanted):
                return
            stalls = meter.stalls() if meter.is_realtime else []
            # Other workers of this session are no disturbance: the process that started all of them is ours.
            if disturbance(before, present_moment(), stalls, os.getppid()):
                break
    pytest.fail(output)
