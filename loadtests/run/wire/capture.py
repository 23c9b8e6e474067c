"""The capture of a trial's arrivals: a process of its own in the client's namespace (`python -m … FILE PORT`).

It says `ready`, or in one line why packets cannot be seen, and writes packets to the file until it gets SIGTERM; what
the kernel counted follows as a line of JSON.
"""

import json
import signal
import sys
import time
from io import RawIOBase
from pathlib import Path
from types import FrameType

from loadtests.run.wire.ring import RETIRE_MS, PacketRing


class _Stop:
    """When the end was asked for; None as long as it was not."""

    def __init__(self) -> None:
        self.asked_ns: int | None = None
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked_ns = time.monotonic_ns()


def record(ring: PacketRing, output: RawIOBase, stop: _Stop) -> None:
    """Write packets until all that had arrived when the end was asked for are there."""
    while True:
        asked_ns = stop.asked_ns
        packets = ring.read(2 * RETIRE_MS)
        if packets is not None:
            output.write(packets.tobytes())
        if asked_ns is not None and (packets is None or packets["at_ns"][-1] > asked_ns):
            return


def main() -> int:
    """Exit code 1, and a sentence on standard output, if the system does not let us see packets."""
    file, port = Path(sys.argv[1]), int(sys.argv[2])
    stop = _Stop()
    try:
        ring = PacketRing(port)
    except OSError as error:
        print(f"this system shows no packets (AF_PACKET: {error.strerror})")
        return 1
    with file.open("wb", buffering=0) as output:
        print("ready", flush=True)
        record(ring, output, stop)
    print(json.dumps([*ring.counts(), time.process_time()]))
    ring.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
