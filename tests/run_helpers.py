"""What the tests of whole runs share: calling `chatlab`, and what a run may say of a machine that is busy."""

import contextlib
import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtests.cli import main
from loadtests.load.recorder import SentCount

ROOT = Path(__file__).parents[1]
LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]

SHORT = """
link: {rtt: 60ms, jitter: 2ms, loss: 5%}
users: {BroadcastUser: 5, PrivateUser: 2, ListeningUser: 1}
messages: {rate: 5/s}
stages: [{users: 8, duration: 4s}]
warmup: 1s
vary:
  connections: [single, redundant]
"""
LONG = SHORT.replace("4s", "60s")
FROZEN = """
link: lan
users: {BroadcastUser: 4}
messages: {rate: 20/s, arrival: constant}
stages: [{users: 4, spawn_rate: 100/s, duration: 4s}]
warmup: 0s
"""

#: Doubts that come from whatever else the machine does while the tests run.
_BUSY = (
    "messages are undisturbed",
    "of the machine was busy",
    "% of a core",
    "ms late at a service time",
    "was late: p99",
)


def chatlab(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    # A test that the machine disturbed is run again as a whole.
    once = ["--repeat", "0"] if arguments[0] == "run" else []
    command = [sys.executable, "-m", "loadtests", *map(str, arguments), *once]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def assert_finished(code: int, printed: str, *, expected: int = 0) -> None:
    """The run came to its end, with the expected code unless it doubts the machine's leisure, and nothing else."""
    doubts = [line for line in printed.splitlines() if line.startswith("NOT TRUSTWORTHY")]
    assert code == (3 if doubts else expected), printed
    assert all(any(busy in doubt for busy in _BUSY) for doubt in doubts), printed


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `chatlab` says of input that it refuses: in this process, as the harness takes a second to load."""
    with pytest.raises(SystemExit) as end:
        sys.exit(main([*map(str, arguments)]))
    assert end.value.code == 2
    return capsys.readouterr().err


def children_named(process: psutil.Process, *words: str) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if all(word in child.cmdline() for word in words)]


def wait_until_sent(results: Path, trial: int, count: int, run: "subprocess.Popen[str]") -> bool:
    """Whether so many messages were sent in this trial; False if another one has begun, or the run has ended."""
    while run.poll() is None and not any(results.glob(f"*/trial-{trial + 1:03}")):
        for file in results.glob(f"*/trial-{trial:03}/*.count"):
            with contextlib.suppress(OSError, struct.error):  # it is being made, or the trial is over
                if SentCount.read(file) >= count:
                    return True
        time.sleep(0.02)
    return False


class StartedRun:
    """A run in a process of its own whose load has sent some messages."""

    def __init__(self, folder: Path, text: str = LONG) -> None:
        scenario = folder / "long.yaml"
        scenario.write_text(text)
        self.results = folder / "results"
        command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--no-report", "--repeat", "0"]
        command += ["--results", str(self.results)]
        # A session of its own, as a terminal gives it: Ctrl-C reaches every process of the group.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        if not wait_until_sent(self.results, 1, 20, self.process):
            raise AssertionError(f"the run ended early: {self.process.communicate()}")

    def end(self) -> tuple[int, str]:
        """Exit code, and the rest of what it printed."""
        printed, errors = self.process.communicate(timeout=60)
        return self.process.returncode, printed + errors

    @property
    def info(self) -> dict[str, Any]:
        return json.loads((next(self.results.iterdir()) / "run.json").read_text())
