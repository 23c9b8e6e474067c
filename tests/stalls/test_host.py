"""What the machine does besides: a foreign process is seen by name, our own is not."""

import os
import signal
import subprocess
import sys
import time

import psutil

from loadtests.stalls.host import Host, run_delay_ns

#: Uses CPU time under a name until it is killed; a foreign one leaves its parent first.
HOG = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
if sys.argv[1] == "noisy-foreigner" and os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
while True:
    pass
"""


def start_hog(name: str) -> int:
    with subprocess.Popen([sys.executable, "-c", HOG, name], stdout=subprocess.PIPE) as hog:
        assert hog.stdout is not None
        pid = int(hog.stdout.readline())
        if pid == hog.pid:
            hog.returncode = 0  # it runs on; whoever asked ends it
    return pid


def test_a_foreign_process_is_known_by_name_and_ours_are_left_out() -> None:
    host = Host()
    host.look()
    hogs = []
    try:
        hogs = [start_hog(name) for name in ("noisy-foreigner", "our-own")]
        while any(sum(psutil.Process(pid).cpu_times()[:2]) < 0.05 for pid in hogs):
            time.sleep(0.01)
        seen = host.look()
    finally:
        for pid in hogs:
            os.kill(pid, signal.SIGKILL)
    os.waitpid(hogs[1], 0)
    assert seen.foreign_s["noisy-foreigner"] > 0
    assert "our-own" not in seen.foreign_s


def test_waiting_for_a_core_is_counted() -> None:
    assert run_delay_ns() >= 0
    assert run_delay_ns(1 << 30) == 0, "there is no such process"
