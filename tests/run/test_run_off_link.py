"""A run's verdict on a link that was right before the load and is not after it.

Among the tests of runs, since these begin later than user-mode Linux, beside which the machine stalls too much for it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest

pytestmark = pytest.mark.realtime("links")

#: A link so long that no neighbour of the test moves its delay out of its window, which is a share of it.
NARROW_SCENARIO = """
link: {rtt: 100ms, rate: 1mbit}
users: {BroadcastUser: 2}
messages: {rate: 9/s}
warmup: 0s
stages: [{users: 2, duration: 1s}]
"""
#: Fills the way down of the primary path, from the server's side: three times its rate. With more the emulator's work
#: would stall the cores, beside other tests: then the run blames the machine rather than the link.
FLOOD = """
import socket, time
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    flood.sendto(bytes(1400), ("10.77.1.1", 9))
    time.sleep(0.004)
"""


def test_a_link_that_was_off_after_the_load_makes_a_run_untrustworthy(tmp_path: Path) -> None:
    """Somebody else uses the link from the end of the load on; the figures before it were right."""
    scenario = tmp_path / "short.yaml"
    scenario.write_text(NARROW_SCENARIO)
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--no-report", "--results", str(tmp_path)]
    with subprocess.Popen([*command, "--repeat", "0"], stdout=subprocess.PIPE, text=True) as chatlab:
        assert chatlab.stdout is not None
        assert any("measuring the link again" in line for line in chatlab.stdout)
        outside = os.readlink("/proc/self/ns/mnt")
        family = [child.pid for child in psutil.Process(chatlab.pid).children(recursive=True)]
        holder = next(pid for pid in family if os.readlink(f"/proc/{pid}/ns/mnt") != outside)
        enter = ["nsenter", "--target", str(holder), "--mount"]
        enter += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        flooding = [*enter, "ip", "netns", "exec", "server", sys.executable, "-c", FLOOD]
        with subprocess.Popen(flooding, stderr=subprocess.DEVNULL) as flood:
            said = chatlab.stdout.read()
            flood.kill()
    assert chatlab.returncode == 3, said
    doubts = [line for line in said.splitlines() if "the link was off" in line]
    assert any("after the load the link was off: primary " in doubt for doubt in doubts), said
    assert not any("before the load" in doubt for doubt in doubts), said
    # Only the first figure that was off is said, and the flood may delay what goes up beside it.
    link = pd.read_csv(next(tmp_path.glob("*-short/link.csv")))
    off = link[~link["within"]]
    assert {"delay_ms", "loss_ratio"} <= set(off.loc[off["direction"] == "down", "metric"]), off
    assert set(off["when"]) == {"after"}, off
