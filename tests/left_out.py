"""What tests leave out, and that CI leaves out nothing else: a plugin of pytest.

Elsewhere a test is skipped for what a machine lacks. In CI (`CI` is set) that is a failure, unless the same test runs
in another way: `.ci/run` installs all that is needed.
"""

import os
from collections.abc import Generator

import pytest

NO_NETEM = "this kernel has no netem: runs in user-mode Linux (test_link_uml.py)"
#: `test_link_uml.py` runs every test of these with netem in its name, in user-mode Linux, whose kernel has it.
NETEM_FILES = ("tests/link/test_link_backends.py", "tests/link/test_link_interface.py")
TAKES_MINUTES = "takes minutes: make test-virtual"


def runs_elsewhere(nodeid: str, reason: str) -> bool:
    """Whether this test, which was skipped for this reason, runs in another way in CI."""
    path, _, name = nodeid.partition("::")
    if reason == NO_NETEM:
        return path in NETEM_FILES and "netem" in name
    return reason == TAKES_MINUTES and path.startswith("tests/clock/")  # which `.ci/run` runs after `make test`


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skipped = call.excinfo.value if call.excinfo else None
    if not os.environ.get("CI") or not isinstance(skipped, pytest.skip.Exception):
        return report
    if not runs_elsewhere(item.nodeid, str(skipped)):
        report.outcome = "failed"
        report.longrepr = f"left out in CI: {skipped}"
    return report
