"""What the emulator costs (`make bench`): CPU per packet, packets per second, round-trip time added, lateness.

Each figure is the median of five runs, beside its limit; exit code 1 if one is over it.
"""

import contextlib
import select
import statistics
import sys
import time

import psutil
from bench_table import Figure, print_table

from loadtests.link.lab import Lab, open_lab
from loadtests.link.measure.probes import ProbeStream, open_ends, run_probes
from loadtests.link.model.pipeline import Pipeline
from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.link.sandbox.laboratory import run_in_lab

RUNS, PACKETS = 5, 40_000
WORK = Direction(delay_s=0.01, loss=0.01)
#: Packets on their way at once: few enough for every socket on the way.
_WINDOW = 200


def flood(lab: Lab) -> tuple[float, float]:
    """CPU of the emulator per packet in µs, and packets per second of its CPU."""
    assert lab.link_pid is not None, "the emulator is a process"
    process = psutil.Process(lab.link_pid)
    with contextlib.ExitStack() as stack:
        client, server = open_ends("primary", stack)
        before = process.cpu_times()
        for _ in range(PACKETS // _WINDOW):
            for _ in range(_WINDOW):
                client.send(bytes(100))
            end_s = time.monotonic() + 0.0102
            while (left_s := end_s - time.monotonic()) > 0:
                if select.select([server], (), (), left_s)[0]:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            server.recv(100)
        after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return used_s / PACKETS * 1e6, PACKETS / used_s


def added_rtt_ms(lab: Lab) -> float:
    """Median round trip through a link that asks for none."""
    streams = [ProbeStream("primary", way, 300, 0.004, 0.05) for way in ("up", "down")]
    run_probes(streams)
    return sum(statistics.median(delay_ns for _, delay_ns in stream.arrivals) for stream in streams) / 1e6


def lateness_ms(lab: Lab) -> float:
    """99th percentile of the lateness of packets, at 5,000 per second."""
    run_probes([ProbeStream("primary", "up", 10_000, 0.0002, 0.05)])
    (late_us,) = (row.lateness_p99_us for row in lab.stats() if row.direction == "up")
    return (late_us or 0) / 1e3


def decisions_per_s() -> float:
    """How many fates a pipeline decides, the packets' reading and writing apart."""
    pipeline, start_s = Pipeline(WORK, "1"), time.process_time()
    for at_ns in range(200_000):
        pipeline.leaves_ns(at_ns, 100)
    return 200_000 / (time.process_time() - start_s)


def main() -> int:
    """Print the table of figures and limits."""
    costs, speeds, added, late, decided = [], [], [], [], []
    for _ in range(RUNS):
        with open_lab({"primary": LinkProfile(name="work", up=WORK, down=WORK)}, "emulator") as lab:
            cost_us, per_s = flood(lab)
            costs.append(cost_us)
            speeds.append(per_s)
        with open_lab({"primary": LinkProfile(name="work", up=WORK, down=WORK)}, "emulator") as lab:
            late.append(lateness_ms(lab))
        with open_lab({"primary": LinkProfile(name="nothing")}, "emulator") as lab:
            added.append(added_rtt_ms(lab))
        decided.append(decisions_per_s())
    figures = (
        Figure("CPU per packet, µs", costs, 10),
        Figure("packets per second of one core", speeds, 60_000, at_most=False),
        Figure("round trip added, ms", added, 0.4),
        Figure("lateness at 5,000 packets/s, p99, ms", late, 0.5),
        Figure("decisions per second", decided, 60_000, at_most=False),
    )
    return 0 if print_table(figures) else 1


if __name__ == "__main__":
    sys.exit(run_in_lab(main))
