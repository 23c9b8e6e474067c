"""What the tests of whole runs share: calling `chatlab`, and what a run may say of a machine that is busy."""

import subprocess
import sys
from pathlib import Path

#: Doubts that come from whatever else the machine does while the tests run.
_BUSY = ("of the machine was busy", "% of a core", "ms late at a service time", "was late: p99")


def chatlab(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "loadtests", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def assert_finished(code: int, printed: str, *, expected: int = 0) -> None:
    """The run came to its end, with the expected code unless it doubts the machine's leisure, and nothing else."""
    doubts = [line for line in printed.splitlines() if line.startswith("NOT TRUSTWORTHY")]
    assert code == (3 if doubts else expected), printed
    assert all(any(busy in doubt for busy in _BUSY) for doubt in doubts), printed
