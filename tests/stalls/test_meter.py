"""The stall meter finds what takes a core away, and dies with whoever started it."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection

import psutil
import pytest

from loadtests.stalls.meter import StallMeter

pytestmark = pytest.mark.realtime("runs")

#: Above the meter's priority.
_PRIORITY = 50
#: So long that nothing else that happens to a core can be taken for it.
_PLANTED_NS = 200_000_000

PARENT = """
from loadtests.stalls.meter import StallMeter
with StallMeter() as meter:
    print(*meter.pids, flush=True)
    input()
"""


def may_use_real_time() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def take_core(core: int, note: Connection) -> None:
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    begin_ns = now_ns = time.monotonic_ns()
    while now_ns < begin_ns + _PLANTED_NS:
        now_ns = time.monotonic_ns()
    note.send((begin_ns, now_ns))


@pytest.mark.skipif(not may_use_real_time(), reason="real-time priority is not allowed here: run as root")
def test_a_stall_is_found_on_its_core_with_its_length() -> None:
    core = min(os.sched_getaffinity(0))
    told, note = Pipe(duplex=False)
    with StallMeter([core]) as meter:
        assert meter.is_realtime
        hog = Process(target=take_core, args=(core, note))
        hog.start()
        begin_ns, end_ns = told.recv()
        hog.join()
        while not (found := [one for one in meter.stalls() if one.begin_ns < end_ns and one.end_ns >= end_ns]):
            time.sleep(0.01)  # the meter itself was held up until now
    assert {stall.core for stall in found} == {core}
    # Whatever else took the core just then makes it longer.
    assert sum(stall.length_ns for stall in found) > 0.9 * (end_ns - begin_ns)


def burn(until: Connection) -> None:
    while not until.poll():
        pass


@pytest.mark.realtime("runs")
@pytest.mark.skipif(not may_use_real_time(), reason="real-time priority is not allowed here: run as root")
def test_an_ordinary_process_that_burns_its_cpu_makes_no_stall() -> None:
    """Such as a server or a client under test."""
    core = min(os.sched_getaffinity(0))
    told, note = Pipe(duplex=False)
    hog = Process(target=burn, args=(told,))
    hog.start()
    assert hog.pid is not None
    os.sched_setaffinity(hog.pid, {core})
    with StallMeter([core]) as meter:
        begin_ns = time.monotonic_ns()
        while psutil.Process(hog.pid).cpu_times().user < 0.5:
            time.sleep(0.01)
        share = sum(stall.length_ns for stall in meter.stalls()) / (time.monotonic_ns() - begin_ns)
    note.send("end")
    hog.join()
    assert share < 0.05


def test_a_sleeper_dies_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        sleepers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(sleepers) == len(os.sched_getaffinity(0))
        parent.send_signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(sleepers, timeout=20)
    assert len(gone) == len(sleepers)
    assert not alive


def test_without_a_core_there_is_nothing_to_measure() -> None:
    with StallMeter([]) as meter:
        pass
    assert meter.stalls() == []
    assert meter.pids == []
