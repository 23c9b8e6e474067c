"""What tests leave out, and that CI leaves out nothing else: a plugin of pytest.

Elsewhere a test is skipped for what a machine lacks. In CI (`CI` is set) that is a failure, unless the same test runs
in another way: `.ci/run` installs all that is needed.
"""

import os
from collections.abc import Generator

import pytest

#: `test_link_uml.py` runs these in user-mode Linux, whose kernel has it.
NO_NETEM = "this kernel has no netem: runs in user-mode Linux (test_link_uml.py)"
#: The one that shows what is said without netem.
HAS_NETEM = "this kernel has netem"
#: `.ci/run` calls it after `make test`.
TAKES_MINUTES = "takes minutes: make test-virtual"
RUN_ELSEWHERE = (NO_NETEM, HAS_NETEM, TAKES_MINUTES)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skipped = call.excinfo.value if call.excinfo else None
    if os.environ.get("CI") and isinstance(skipped, pytest.skip.Exception) and str(skipped) not in RUN_ELSEWHERE:
        report.outcome = "failed"
        report.longrepr = f"left out in CI: {skipped}"
    return report
