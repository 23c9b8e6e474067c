"""Measure the same links on one backend, for test_agreement.py: prints one object of JSON.

Runs in virtual time, so that both backends meet the same machine, and nothing disturbs either.
"""

import contextlib
import json
import select
import socket
import statistics
import sys
import time
from itertools import groupby

from loadtests.link.backends.backend import BackendName
from loadtests.link.lab import Lab, open_lab
from loadtests.link.measure.probes import ProbeStream, open_ends, run_probes
from loadtests.link.model.profile import PATHS, Direction, GilbertElliott, LinkProfile
from loadtests.link.sandbox.laboratory import run_in_lab

NORMAL = Direction(delay_s=0.02, jitter_s=0.004, distribution="normal", keep_order=False)
RANDOM = Direction(loss=0.02)
BURSTS = Direction(loss=GilbertElliott(0.01, 0.25))
NARROW = Direction(delay_s=0.01, rate_bps=5e6, queue_packets=21)  # 50 ms of full packets

#: No more packets on their way than a socket holds, and how long the last may take.
_WINDOW, _PATIENCE_S = 100, 0.05
_TRANSFER_S = 4.0
#: Of each direction of each path.
_ROUNDS, _PROBES = 125, 200


def delays_ms(lab: Lab) -> dict[str, float]:
    """Median and interquartile range of the one-way delays of all probes."""
    taken_ms: list[float] = []
    for _round in range(_ROUNDS):
        streams = [ProbeStream(path, way, _PROBES, 0.01, 0.05) for path in PATHS for way in ("up", "down")]
        run_probes(streams)
        taken_ms += [delay_ns / 1e6 for stream in streams for _, delay_ns in stream.arrivals]
    first, median, third = statistics.quantiles(taken_ms, n=4)
    return {"median_ms": median, "spread_ms": third - first, "probes": len(taken_ms)}


def losses(lab: Lab, count: int) -> dict[str, float]:
    """Share of packets lost and the mean length of a burst; the chain steps per packet, so pace is no matter."""
    arrived = set()
    with contextlib.ExitStack() as stack:
        client, server = open_ends("primary", stack)
        sent, newest = 0, -1
        while sent < count or newest < count - 1:
            while sent < count and sent - newest <= _WINDOW:
                client.send(sent.to_bytes(4, "big"))
                sent += 1
            if not select.select([server], (), (), _PATIENCE_S)[0]:
                newest = sent - 1  # the rest of the window is lost
            with contextlib.suppress(BlockingIOError):
                while True:
                    newest = int.from_bytes(server.recv(4), "big")
                    arrived.add(newest)
    fates = [number in arrived for number in range(count)]
    bursts = [len(list(run)) for got_through, run in groupby(fates) if not got_through]
    burst = statistics.fmean(bursts)
    return {"loss": 1 - len(arrived) / count, "packets": count, "burst": burst, "bursts": len(bursts)}


def goodput_bps(lab: Lab) -> dict[str, float]:
    """Bytes that a bulk transfer brings once slow start is over."""
    with lab.server.entered():
        listener = socket.create_server((lab.addresses["primary"], 7777))
    with lab.client.entered():
        client = socket.create_connection((lab.addresses["primary"], 7777), timeout=5)
    server, _ = listener.accept()
    with listener, client, server:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        client.setblocking(False)
        start_s, received = time.monotonic(), 0
        while time.monotonic() < start_s + 1 + _TRANSFER_S:
            readable, writable, _ = select.select([server], [client], [], 1)
            if writable:
                client.send(bytes(65536))
            if readable:
                data = server.recv(65536)
                received += len(data) if time.monotonic() > start_s + 1 else 0
    return {"goodput_bps": received * 8 / _TRANSFER_S}


def main() -> int:
    """Every link on the backend that the command line names."""
    backend: BackendName = "netem" if sys.argv[1] == "netem" else "emulator"
    found: dict[str, dict[str, float]] = {}
    for name, direction, measure in (
        ("normal", NORMAL, delays_ms),
        ("random", RANDOM, lambda lab: losses(lab, 100_000)),
        ("bursts", BURSTS, lambda lab: losses(lab, 1_000_000)),
        ("narrow", NARROW, goodput_bps),
    ):
        link = LinkProfile(name=name, up=direction, down=direction)
        with open_lab(dict.fromkeys(PATHS, link), backend) as lab:
            found[name] = measure(lab)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_in_lab(main))
