"""What becomes of a trial's packets: the capture that is started for them, and what it leaves for the join."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from loadtests.link.lab import Lab
from loadtests.run.children import APART, ended, tail
from loadtests.run.manifest import Watched
from loadtests.run.wire import capture
from loadtests.run.wire.arrivals import PACKET, Packets

#: In the trial's folder: the packets, and what is known about them.
_PACKETS, _FACTS, _LOG = "wire.packets", "wire.json", "wire.log"


@contextmanager
def watching(lab: Lab, folder: Path, port: int) -> Iterator[Watched]:
    """Keep the packets that the server's port sends to the client. Connections must begin inside.

    Where that cannot be done the trial goes on without: rows then have their own stamps, and `problem` says why.
    """
    corrupts = any(direction.corrupt for link in lab.links.values() for direction in link.moments("down"))
    watched = Watched(corrupts)
    command = [sys.executable, "-m", capture.__name__, str(folder / _PACKETS), str(port)]
    with (folder / _LOG).open("wb") as log:
        process = lab.client.popen(command, **APART, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    with process.stdout:
        try:
            with ended(process):
                answer = process.stdout.readline().decode().strip()
                if answer != "ready":
                    watched.problem = answer or f"the capture of packets died: {tail(folder / _LOG)}"
                yield watched
        finally:
            counts = process.stdout.readline()
            if counts:
                counted = msgspec.json.decode(counts, type=tuple[int, int, float])
                watched.packets, watched.dropped, watched.cpu_s = counted
            elif not watched.problem:
                watched.problem = f"the capture of packets died: {tail(folder / _LOG)}"
            (folder / _FACTS).write_bytes(msgspec.json.encode(watched))


def watched_packets(folder: Path) -> tuple[Watched, Packets] | None:
    """What :func:`watching` has left in a trial's folder; None if there are no packets."""
    facts = folder / _FACTS
    if not facts.exists():
        return None
    watched = msgspec.json.decode(facts.read_bytes(), type=Watched)
    return None if watched.problem else (watched, np.fromfile(folder / _PACKETS, PACKET))
