"""Tests that depend on real time, on machines that have other things to do: a plugin of pytest.

`@pytest.mark.realtime("links")` says that a test depends on real time, and to which area it belongs. It fails only if
it failed undisturbed: alone, and while `disturbance.py` found nothing. Otherwise it is run again when no other test is
left, alone, with all its fixtures made anew; after three more times it is skipped, and the reason says what disturbed
it. One that had neither process, socket nor thread fails at once, whatever its module is marked with. In CI
(`CI` is set) there are as many tries as 20 minutes hold, and the session fails if in a whole area no test came to a
verdict.
"""

import contextlib
import fcntl
import gc
import itertools
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from disturbance import Moment, disturbance, present_moment

from loadtests.stalls.meter import StallMeter

#: Whoever runs a pytest of its own, and runs that again, may want one try of it.
TRIES = int(os.environ.get("CHAT_TEST_TRIES", "4"))
CI_TRIES_S = 20 * 60.0
SLOW_AREAS = ("runs", "links")
#: No machine makes these happen: they fail at once.
MISTAKES = (NameError, ImportError, SyntaxError, AttributeError, TypeError)
#: What Python says of itself (`sys.addaudithook`) before it can wait for anything but its own computing.
WAITS = {
    *("socket.__new__", "_thread.start_new_thread", "_thread.start_joinable_thread"),
    *("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "realtime(area): depends on real time, fails only if it failed undisturbed")
    config.addinivalue_line("markers", "long: computes for many seconds, and begins before what is quick")
    config.pluginmanager.register(Undisturbed(config), "undisturbed tests")


class Room:
    """Where tests run: several workers side by side, or one of them alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Seconds that all workers have spent alone.
        self._spent = folder / "spent"

    def beside_others(self) -> contextlib.AbstractContextManager[None]:
        return self._locked(fcntl.LOCK_SH)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_EX):
            begin_s = time.monotonic()
            try:
                yield
            finally:
                self._spent.write_text(str(self.spent_s + time.monotonic() - begin_s))

    @property
    def spent_s(self) -> float:
        return float(self._spent.read_text()) if self._spent.exists() else 0.0

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with open(self._folder / "room", "w") as file:
            fcntl.flock(file, how)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # children that a test left hold the file too


class Undisturbed:
    """One session of pytest: a whole one, a worker's, or that of those who lead workers."""

    def __init__(self, config: pytest.Config) -> None:
        workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._is_worker = workerinput is not None
        self._folder = Path(workerinput["undisturbed"] if workerinput else tempfile.mkdtemp(prefix="undisturbed-"))
        self._room = Room(self._folder)
        self._is_ci = bool(os.environ.get("CI"))
        self._meter: StallMeter | None = None
        #: Those that were disturbed at their first try, in order; they wait until no other test is left.
        self._put_off: list[pytest.Item] = []
        #: Which try of a test this is, 0 outside of tests; whether there will be another one.
        self._try = 0
        self._again = False
        #: Since when nothing else of ours ran; None beside other workers.
        self._alone_since: Moment | None = None
        self._module: Path | None = None
        self._has_waited = False
        sys.addaudithook(self._audit)
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)

    # Workers take files in this order: what takes long begins early, and what is quick fills the gaps at the end.
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        slowest: dict[Path, int] = defaultdict(int)
        for item in items:
            area, limit = (item.get_closest_marker(name) for name in ("realtime", "timeout"))
            is_slow = area and area.args[0] in SLOW_AREAS
            rank = 3 if limit else 2 if is_slow else 1 if item.get_closest_marker("long") else 0
            slowest[item.path] = max(slowest[item.path], rank)
        items.sort(key=lambda item: -slowest[item.path])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["undisturbed"] = str(self._folder)

    def pytest_unconfigure(self) -> None:
        if self._meter is not None:
            self._meter.__exit__(None, None, None)
        if not self._is_worker:
            shutil.rmtree(self._folder)

    # Outermost: waiting for others takes none of the time-out.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool, bool]:
        if self._try > 1:
            self._has_waited = False
            return (yield)
        self._try, self._again = 1, False
        with self._room.beside_others():
            if item.get_closest_marker("realtime") and not self._is_worker and item.path != self._module:
                # What a module's fixtures met counts for all of its tests.
                self._module, self._alone_since = item.path, self._watch()
            self._has_waited = False
            done = yield
        if self._again:
            self._put_off.append(item)
        if nextitem is None:
            self._try_again()
        return done

    def _try_again(self) -> None:
        """Run those that were put off, each until it comes to a verdict or may not be tried again."""
        self._module = None
        for item, nextitem in itertools.zip_longest(self._put_off, self._put_off[1:]):
            self._try, self._again = 1, True
            while self._again:
                with self._room.alone(), _reporting(item):
                    if self._try > 1 or item.path != self._module:
                        self._module, self._alone_since = item.path, self._watch()
                    self._try, self._again = self._try + 1, False
                    item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        marker = item.get_closest_marker("realtime")
        if marker is None or (call.excinfo and issubclass(call.excinfo.type, MISTAKES)):
            return report
        (area,) = marker.args
        report.realtime_area = area  # type: ignore[attr-defined]
        if report.failed and self._depends_on_time(item) and (found := self._disturbance()):
            report.disturbance = found  # type: ignore[attr-defined]
            self._again = self._again or self._may_try_again()
            report.outcome = "rerun" if self._again else "skipped"  # type: ignore[assignment]
            if not self._again:
                path, line, _ = item.location
                said = str(call.excinfo.value).partition("\n")[0] if call.excinfo else ""
                reason = f"failed {self._try} times, each time disturbed: {found}; at last: {said}"
                report.longrepr = (path, (line or 0) + 1, reason)
        return report

    # Before pytest's own: a module's fixture may be a run that was disturbed.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if self._again:
            if self._try > 1:
                item.session._setupstate.teardown_exact(None)
            forget_failure()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "realtime_area"):
            self._reports[report.nodeid].append(report)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("rerun", "R", "RERUN") if report.outcome == "rerun" else None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_ci and not self._is_worker and self._areas_without_verdict():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        met = {node: found for node, reports in self._reports.items() if (found := _disturbances(reports))}
        if met:
            terminalreporter.write_sep("=", "tests that were disturbed")
        for node, found in met.items():
            ends = [report.outcome for report in self._reports[node] if report.outcome in ("failed", "skipped")]
            outcome = ends[-1] if ends else "passed at last"
            terminalreporter.write_line(f"{node}: {outcome}; {'; then '.join(found)}")
        if self._is_ci:
            for area in self._areas_without_verdict():
                terminalreporter.write_line(f"ERROR: no test of the {area} came to a verdict", red=True)

    def _areas_without_verdict(self) -> list[str]:
        """Those of which tests were skipped for what disturbed them, and none passed or failed."""
        skipped, judged = set(), set()
        for report in itertools.chain.from_iterable(self._reports.values()):
            if report.skipped and _disturbances([report]):
                skipped.add(report.realtime_area)  # type: ignore[attr-defined]
            elif report.failed or (report.passed and report.when == "call"):
                judged.add(report.realtime_area)  # type: ignore[attr-defined]
        return sorted(skipped - judged)

    def _audit(self, event: str, _arguments: Any) -> None:
        self._has_waited = self._has_waited or event in WAITS

    def _depends_on_time(self, item: pytest.Item) -> bool:
        """Whether it has waited for something, itself or in a fixture that it shares with others."""
        known: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
        ours = (each[-1] for each in known.values() if not each[-1].func.__module__.startswith("_pytest."))
        return self._has_waited or any(fixture.scope != "function" for fixture in ours)

    def _may_try_again(self) -> bool:
        return self._room.spent_s < CI_TRIES_S if self._is_ci else self._try < TRIES

    def _watch(self) -> Moment:
        """The stall meter runs from the first time that it is needed."""
        if self._meter is None:
            self._meter = StallMeter().__enter__()
        return present_moment()

    def _disturbance(self) -> str | None:
        if self._alone_since is None:
            return "other tests ran beside it"
        assert self._meter is not None
        # In ordinary priority the meter is delayed by our own processes too.
        stalls = self._meter.stalls() if self._meter.is_realtime else []
        own = os.getppid() if self._is_worker else os.getpid()
        return disturbance(self._alone_since, present_moment(), stalls, own)


@contextlib.contextmanager
def _reporting(item: pytest.Item) -> Iterator[None]:
    """Lets a worker report on `item`: pytest-xdist 3.8 takes reports only of the test that the worker was sent."""
    workers = [plugin for plugin in item.config.pluginmanager.get_plugins() if hasattr(plugin, "item_index")]
    sent = [worker.item_index for worker in workers]
    for worker in workers:
        worker.item_index = item.session.items.index(item)
    yield
    for worker, index in zip(workers, sent, strict=True):
        worker.item_index = index


def forget_failure() -> None:
    """What a test that failed left open is closed here, lest its warnings fail another test."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        if hasattr(sys, name):
            delattr(sys, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _disturbances(reports: list[pytest.TestReport]) -> list[str]:
    return [report.disturbance for report in reports if hasattr(report, "disturbance")]
