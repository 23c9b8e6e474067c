"""The contract of a link backend, run on each: what loadtests/README.md promises, measured with real packets.

netem runs where the kernel has it, and elsewhere inside user-mode Linux (test_link_uml.py runs this file there).
"""

import contextlib
import math
import select
import socket
import time

import pytest
from link_helpers import in_lab, need_netem

from loadtests.errors import LinkError
from loadtests.link.backends.backend import BackendName
from loadtests.link.backends.netem import kernel_has_netem
from loadtests.link.lab import Lab, open_lab
from loadtests.link.measure.probes import PROBE_BYTES
from loadtests.link.model.profile import PATHS, Change, Direction, GilbertElliott, LinkProfile
from loadtests.stalls.intervals import Interval

pytestmark = pytest.mark.realtime("links")


@pytest.fixture(params=["emulator", "netem"])
def backend(request: pytest.FixtureRequest) -> BackendName:
    name: BackendName = request.param
    if name == "netem":
        need_netem()
    return name


def link(up: Direction, down: Direction | None = None) -> LinkProfile:
    return LinkProfile(name="test", up=up, down=up if down is None else down)


LINKS = {
    "delay": link(Direction(delay_s=0.02)),
    "jitter and loss": link(Direction(delay_s=0.02, jitter_s=0.004, loss=0.02)),
    "bursts": link(Direction(delay_s=0.005, loss=GilbertElliott(0.01, 0.25))),
    "rates": link(
        Direction(delay_s=0.05, rate_bps=5e5, queue_packets=10),
        Direction(delay_s=0.01, rate_bps=20e6, queue_packets=50),
    ),
    "normal jitter in any order": link(
        Direction(delay_s=0.02, jitter_s=0.004, distribution="normal", keep_order=False),
        Direction(
            delay_s=0.03, jitter_s=0.008, distribution="normal", keep_order=False, rate_bps=20e6, queue_packets=9
        ),
    ),
    "pareto jitter": link(Direction(delay_s=0.03, jitter_s=0.006, distribution="pareto"), Direction(delay_s=0.01)),
    "copies": link(Direction(delay_s=0.02, reorder=0.1, duplicate=0.05), Direction(corrupt=0.05)),
    "nothing": link(Direction()),
}
#: What a machine with other work may add to a time for as long as a test lasts.
SLACK_MS = 2.0
PAIRS = list(zip(list(LINKS)[::2], list(LINKS)[1::2], strict=True))


def test_auto_takes_netem_where_the_kernel_has_it(backend: BackendName) -> None:
    def chosen() -> tuple[str, bool]:
        with open_lab({"primary": LINKS["nothing"]}, "auto") as lab:
            return lab.backend, kernel_has_netem()

    assert in_lab(chosen) in (("netem", True), ("emulator", False))


def test_asking_for_netem_gives_it_or_is_refused() -> None:
    def answer() -> tuple[bool, str]:
        has_netem = kernel_has_netem()
        try:
            with open_lab({"primary": LINKS["nothing"]}, "netem") as lab:
                return has_netem, lab.backend
        except LinkError as error:
            return has_netem, str(error)

    has_netem, said = in_lab(answer)
    if has_netem:
        assert said == "netem"
    else:
        assert "no netem (CONFIG_NET_SCH_NETEM); use the emulator" in said


@pytest.mark.parametrize("names", PAIRS, ids=" beside ".join)
def test_the_link_is_what_was_asked_for(names: tuple[str, str], backend: BackendName) -> None:
    """Calibration of two paths at once finds every figure in its window, and so do as many more as it takes.

    A busy machine pushes now this figure out of its window, now that one; that of a wrong link is out of it each time.
    """

    def measured() -> set[str]:
        with open_lab({path: LINKS[name] for path, name in zip(PATHS, names, strict=True)}, backend) as lab:
            off = off_by_far(lab)
            while off and (still := off & off_by_far(lab)) != off:
                off = still
            return off

    assert in_lab(measured) == set()


def test_what_overtakes_waits_for_the_rate_like_all_others() -> None:
    """On the emulator: netem lets it pass, and says so."""

    def measured() -> set[str]:
        overtaking = link(Direction(delay_s=0.03, reorder=0.2, rate_bps=2e6, queue_packets=20))
        with open_lab({"primary": overtaking}, "auto") as lab:
            off = off_by_far(lab)
            return {lab.backend} | (off and off & off_by_far(lab))

    assert in_lab(measured) == {"emulator"}


def off_by_far(lab: Lab) -> set[str]:
    """The figures out of their windows, times by more than the slack too."""
    rows = [(row, SLACK_MS if row.metric.endswith("_ms") else 0.0) for row in lab.calibrate()]
    return {
        f"{row.path} {row.direction} {row.metric}"
        for row, slack in rows
        if not row.low - slack <= row.measured <= row.high + slack
    }


def test_a_full_queue_drops_its_tail(backend: BackendName) -> None:
    """Of a burst, as many packets arrive as the queue holds, in order, at the rate; the rest is counted as dropped."""
    queue_packets, sent = 20, 100
    narrow = Direction(delay_s=0.01, rate_bps=1e6, queue_packets=queue_packets)

    def burst() -> tuple[list[int], float, int]:
        with open_lab({"primary": link(narrow)}, backend) as lab, contextlib.closing(receiver(lab)) as server:
            with lab.client.entered():
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            start_s = time.monotonic()
            with client:
                for number in range(sent):
                    client.sendto(number.to_bytes(1, "big") + bytes(999), (lab.addresses["primary"], 7777))
            sending_s = time.monotonic() - start_s
            arrived = []
            while select.select([server], [], [], 1)[0]:
                arrived.append(server.recv(2000)[0])
            dropped = next(stats.dropped_packets for stats in lab.stats() if stats.direction == "up")
            return arrived, sending_s, dropped

    arrived, sending_s, dropped = in_lab(burst)
    sent_meanwhile = math.ceil(sending_s / narrow.transmission_s(1028)) + 1
    assert queue_packets <= len(arrived) <= queue_packets + sent_meanwhile
    assert arrived == sorted(arrived)
    assert dropped == sent - len(arrived)


def test_a_timeline_changes_the_link_and_says_when(backend: BackendName) -> None:
    """Each direction at its times, in a cycle, until it is stopped; then the link is as it was."""
    beginning = Direction(delay_s=0.01)  # with no rate, and again without when it comes back
    after = Direction(delay_s=0.03, jitter_s=0.001, loss=0.01, rate_bps=5e4, queue_packets=10)
    changing = LinkProfile(
        name="test", up=beginning, down=beginning, timeline=(Change(0.2, after, beginning),), cycle_s=0.5
    )

    def followed() -> tuple[list[tuple[int, str, str]], list[float]]:
        with open_lab({"primary": changing}, backend) as lab:
            zero_ns = time.monotonic_ns() - 400_000_000
            lab.start(zero_ns)
            while len(lab.changes()) < 3:
                lab.check()
            changes = [(change.at_ns - zero_ns, change.direction, change.text) for change in lab.changes()]
            lab.stop()
            return changes, [row.measured for row in lab.calibrate() if row.metric == "rtt_ms"]

    changes, rtts_ms = in_lab(followed)
    assert [(way, text) for _, way, text in changes[:3]] == [
        ("up", str(after)),
        ("up", str(beginning)),
        ("up", str(after)),
    ]
    for (at_ns, _, _), due_ns in zip(changes, (200e6, 500e6, 700e6), strict=False):
        assert at_ns >= due_ns
    assert rtts_ms == [pytest.approx(20, abs=4)], "the rate alone would have added 9 ms"


def test_tcp_gets_the_rate(backend: BackendName) -> None:
    """A bulk transfer reaches between 85 % and 100 % of the rate as goodput."""
    rate_bps, measured_s = 5e6, 2.0
    profile = link(Direction(delay_s=0.01, rate_bps=rate_bps, queue_packets=21))

    def goodput_bps() -> float:
        with open_lab({"primary": profile}, backend) as lab:
            with lab.server.entered():
                listener = socket.create_server((lab.addresses["primary"], 7777))
            with lab.client.entered():
                client = socket.create_connection((lab.addresses["primary"], 7777), timeout=5)
            server, _ = listener.accept()
            with listener, client, server:
                client.setblocking(False)
                start_s, received = time.monotonic(), 0
                first_s = last_s = 0.0
                while last_s < first_s + measured_s or not first_s:
                    readable, writable, _ = select.select([server], [client], [], 1)
                    if writable:
                        client.send(bytes(65536))
                    if readable:
                        data = server.recv(1 << 20)
                        last_s = time.monotonic()
                        if first_s:
                            received += len(data)
                        elif last_s > start_s + 1:  # slow start is over, and what had gathered is read
                            first_s = last_s
                return received * 8 / (last_s - first_s)

    assert 0.85 * rate_bps < in_lab(goodput_bps) < 1.0 * rate_bps


def test_one_lab_after_another(backend: BackendName) -> None:
    """Closing undoes all: the next links are built with the same names and addresses."""

    def delays_ms() -> list[float]:
        found = []
        for delay_s in (0.01, 0.03):
            with open_lab({"primary": link(Direction(delay_s=delay_s))}, backend) as lab:
                found += [row.measured for row in lab.calibrate() if row.metric == "rtt_ms"]
        return found

    assert in_lab(delays_ms) == [pytest.approx(20, abs=8), pytest.approx(60, abs=8)]


def receiver(lab: Lab) -> socket.socket:
    with lab.server.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((lab.addresses["primary"], 7777))
    return server


def test_probes_are_what_calibration_says_they_are(backend: BackendName) -> None:
    """The size of a probe decides how long it occupies a slow link, so the counters must agree with it.

    However often calibration was repeated.
    """

    def carried() -> list[tuple[int, int]]:
        with open_lab({"primary": LINKS["nothing"]}, backend) as lab:
            probes = lab.calibrate()[0].probes
            return [(stats.delivered_bytes, probes * PROBE_BYTES) for stats in lab.stats()]

    for delivered_bytes, probe_bytes in in_lab(carried):
        assert delivered_bytes in (probe_bytes, 2 * probe_bytes, 3 * probe_bytes)


def test_the_emulator_repeats_itself() -> None:
    """The same seed loses the same packets, another seed others: netem cannot promise that."""

    def lost(seed: int) -> list[int]:
        with open_lab({"primary": link(Direction(loss=0.3))}, "emulator", seed) as lab:
            server = receiver(lab)
            with lab.client.entered():
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with client, server:
                for number in range(100):
                    client.sendto(bytes([number]), (lab.addresses["primary"], 7777))
                arrived = []
                while select.select([server], [], [], 1)[0]:
                    arrived.append(server.recv(10)[0])
        return arrived

    first, again, other = (in_lab(lambda seed=seed: lost(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert 50 < len(first) < 90


def test_the_emulator_counts_how_late_it_is() -> None:
    def lateness_us() -> list[float | None]:
        with open_lab({"primary": LINKS["delay"]}, "emulator") as lab:
            lab.calibrate()
            return [stats.lateness_p99_us for stats in lab.stats()]

    assert all(late is not None and 0 < late <= 10_000 for late in in_lab(lateness_us))


@pytest.mark.parametrize(("every_ms", "is_disturbed"), [(1000, False), (40, True)])
def test_a_machine_that_stalls_often_is_doubted_rather_than_the_link(every_ms: int, is_disturbed: bool) -> None:
    """Probes that meet a stall are measured anew; where many do, the others are not believed either."""

    def stalls() -> list[Interval]:
        begins_ns = [time.monotonic_ns() - number * every_ms * 1_000_000 for number in range(1, 60_000 // every_ms)]
        return [Interval(begin_ns, begin_ns + 2_000_000) for begin_ns in begins_ns]

    def found() -> set[bool]:
        with open_lab({"primary": LINKS["delay"]}, "emulator") as lab:
            return {row.disturbed for row in lab.calibrate(stalls)}

    assert in_lab(found) == {is_disturbed}


def test_no_backend_is_a_cable_that_does_nothing() -> None:
    """Whatever the link asks for; calibration expects nothing, and the packets are counted."""

    def plain() -> tuple[str, list[str], list[bool]]:
        with open_lab({"primary": LINKS["delay"]}, "none") as lab:
            lab.start()
            rows = lab.calibrate()
            lab.check()
            lab.stop()
            off = [str(row) for row in rows if not row.within] + [change.text for change in lab.changes()]
            return lab.backend, off, [stats.delivered_packets >= rows[0].probes for stats in lab.stats()]

    assert in_lab(plain) == ("none", [], [True, True])
