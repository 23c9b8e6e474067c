"""Captures at both ends of a trial's links → TCP segments, as tshark reads them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from loadtests.errors import HarnessError

_FIELDS = (
    "frame.time_epoch",
    "ip.src",
    "tcp.srcport",
    "ip.dst",
    "tcp.dstport",
    "ip.id",
    "tcp.seq_raw",
    "tcp.flags.syn",
)


class Flow(NamedTuple):
    """One direction of a TCP connection."""

    source: str
    source_port: int
    target: str
    target_port: int

    @property
    def back(self) -> "Flow":
        """The other direction."""
        return Flow(self.target, self.target_port, self.source, self.source_port)


class Segment(NamedTuple):
    """One packet with data, or one that begins a connection."""

    at_s: float
    flow: Flow
    #: IPv4 identification: with the flow it tells a packet from its retransmission.
    packet: int
    #: As on the wire, modulo 2^32; of a SYN, that before the first byte.
    sequence: int
    is_syn: bool
    payload: bytes


def read_capture(file: Path) -> list[Segment]:
    """All segments of a capture in the order of time; raises HarnessError: there is none, or tshark cannot read it."""
    if not file.exists():
        raise HarnessError(f"{file} does not exist: the trial has no packet capture; run it with --capture")
    fields = [word for name in (*_FIELDS, "tcp.payload") for word in ("-e", name)]
    command = ["tshark", "-r", str(file), "-Y", "tcp.len > 0 or tcp.flags.syn == 1", "-T", "fields", *fields]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise HarnessError("reading a capture needs tshark; on Debian or Ubuntu: apt-get install tshark") from None
    except subprocess.CalledProcessError as error:
        raise HarnessError(f"tshark cannot read {file}: {error.stderr.strip()}") from None
    return sorted(_segments(printed))


def _segments(printed: str) -> Iterator[Segment]:
    for line in printed.splitlines():
        at_s, source, source_port, target, target_port, packet, sequence, syn, payload = line.split("\t")
        flow = Flow(source, int(source_port), target, int(target_port))
        is_syn = syn in ("1", "True")
        yield Segment(float(at_s), flow, int(packet, 0), int(sequence), is_syn, bytes.fromhex(payload))
