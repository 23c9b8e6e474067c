"""Packet captures of a trial at both ends of its links, to hold the tables against the wire."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtests.errors import HarnessError
from loadtests.link.lab import Lab

_TOOL = "dumpcap"
_START_TIMEOUT_S = 10.0
#: The kernel hands packets over in blocks, a quarter of a second late at most; what is not read by the end is lost.
_DRAIN_S = 0.6


def check_tool() -> None:
    """Raises HarnessError: nothing here can capture packets."""
    if shutil.which(_TOOL) is None:
        raise HarnessError(f"--capture needs {_TOOL}; on Debian or Ubuntu: apt-get install tshark")


@contextmanager
def capturing(lab: Lab, folder: Path, paths: list[str]) -> Iterator[None]:
    """Write `client.pcapng` and `server.pcapng`: every packet of every path, with the kernel's time stamps.

    Raises HarnessError: the capture does not start.
    """
    with ExitStack() as stack:
        for host in (lab.client, lab.server):
            command = [_TOOL, "-q", *(word for path in paths for word in ("-i", path))]
            command += ["-f", "tcp", "-w", str(folder / f"{host.name}.pcapng")]
            log = folder / f"{host.name}-capture.log"
            with log.open("wb") as output:
                process = host.popen(command, stdin=subprocess.DEVNULL, stderr=output, process_group=0)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            _await_start(process, log)
        yield
        time.sleep(_DRAIN_S)


def _await_start(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while b"File:" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise HarnessError(f"the packet capture did not start: {log.read_text(errors='replace').strip()}")
        time.sleep(0.02)
