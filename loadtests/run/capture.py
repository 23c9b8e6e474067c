"""Packet captures of a trial at both ends of its links, to hold the tables against the wire."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chat.words import count
from loadtests.errors import HarnessError
from loadtests.link.lab import Lab

_TOOL = "dumpcap"
_START_TIMEOUT_S = 10.0
#: The kernel hands packets over in blocks, a quarter of a second late at most; what is not read by the end is lost.
_DRAIN_S = 0.6
#: What waits while somebody else has the cores must find room: in the kernel for each interface, and in the tool,
#: which otherwise has room for 1,000 packets of several interfaces.
_BUFFER_MIB, _QUEUE_BYTES = 16, 64_000_000
#: What the tool says at its end of each interface: how many packets came, and for how many there was no room.
_DROPPED = re.compile(r"^Packets received/dropped on interface .*: \d+/(\d+) ", re.MULTILINE)


def check_tool() -> None:
    """Raises HarnessError: nothing here can capture packets."""
    if shutil.which(_TOOL) is None:
        raise HarnessError(f"--capture needs {_TOOL}; on Debian or Ubuntu: apt-get install tshark")


@contextmanager
def capturing(lab: Lab, folder: Path, paths: list[str], note: Callable[[str], None]) -> Iterator[None]:
    """Write `client.pcapng` and `server.pcapng`: every packet of every path, with the kernel's time stamps.

    Args:
        note: is told at the end if packets are missing.

    Raises HarnessError: the capture does not start.
    """
    hosts = (lab.client, lab.server)
    logs = {host.name: folder / f"{host.name}-capture.log" for host in hosts}
    with ExitStack() as stack:
        for host in hosts:
            command = [_TOOL, "-q", "-B", str(_BUFFER_MIB), "-C", str(_QUEUE_BYTES)]
            command += [word for path in paths for word in ("-i", path)]
            command += ["-f", "tcp", "-w", str(folder / f"{host.name}.pcapng")]
            log = logs[host.name]
            with log.open("wb") as output:
                process = host.popen(command, stdin=subprocess.DEVNULL, stderr=output, process_group=0)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            _await_start(process, log)
        yield
        time.sleep(_DRAIN_S)
    for name, log in logs.items():
        if lacking := dropped(log.read_text(errors="replace")):
            note(f"{name}.pcapng lacks {count(lacking, 'packet')}: the machine was too busy to take them")


def dropped(log: str) -> int:
    """For how many packets there was no room, of all interfaces, as the tool says at its end."""
    return sum(map(int, _DROPPED.findall(log)))


def _await_start(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while b"File:" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise HarnessError(f"the packet capture did not start: {log.read_text(errors='replace').strip()}")
        time.sleep(0.02)
