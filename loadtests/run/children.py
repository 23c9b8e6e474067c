"""Processes that a trial starts: apart from the terminal's Ctrl-C, and gone when they are not needed any more."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: For `Popen`. Ctrl-C is for us alone: we end our children ourselves, in order.
APART: dict[str, Any] = {"stdin": subprocess.DEVNULL, "process_group": 0}
_STOP_TIMEOUT_S = 10.0


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """The process and its children have ended when this is left: asked first, then killed."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def seconds_of(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Once a second while the process runs."""
    while True:
        try:
            process.wait(timeout=1.0)
            return
        except subprocess.TimeoutExpired:
            yield


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
