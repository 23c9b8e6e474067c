"""TCP handshakes with a server elsewhere: the one measurement of a link that needs nobody's help at its other end."""

import errno
import math
import selectors
import socket
import statistics
import time
from dataclasses import dataclass

from loadtests.errors import LinkError
from loadtests.link.measure.calibrate import LinkRow, loss_window, mean_and_chance, model_streams, row, time_row
from loadtests.link.measure.probes import ProbeStream
from loadtests.link.model.profile import Direction, LinkProfile

_COUNT, _INTERVAL_S = 60, 0.02
#: A lost SYN is sent again after a second (RFC 6298), so whatever took this much longer than the rest was lost.
_LOST_AFTER_S = 0.5
#: A network that is not ours, and a process that must be woken, may move a median by this share of it and this much.
_SHARE, _WITHIN_S = 0.05, 0.001

Address = tuple[str, int]


@dataclass
class Handshakes:
    """How long each handshake that nothing delayed took, in seconds, and how many there were."""

    times_s: list[float]
    count: int

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s) if self.times_s else float("nan")

    @property
    def spread_s(self) -> float:
        """How far they lie apart: the quartiles."""
        first, _, third = statistics.quantiles(self.times_s, n=4) if len(self.times_s) > 1 else (0.0, 0.0, 0.0)
        return third - first

    @property
    def lost_ratio(self) -> float:
        return 1 - len(self.times_s) / self.count


def shake_hands(server: Address, expected_s: float) -> Handshakes:
    """Open connections to the server at a steady pace, and close each as soon as it is there.

    Args:
        expected_s: how long one should take about.

    Raises LinkError: nobody answers there.
    """
    found = Handshakes([], _COUNT)
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with selectors.DefaultSelector() as selector:
        begin_s = time.monotonic()
        end_s = begin_s + _COUNT * _INTERVAL_S + expected_s + _LOST_AFTER_S
        begun = 0
        while time.monotonic() < end_s and (begun < _COUNT or selector.get_map()):
            due_s = begin_s + begun * _INTERVAL_S if begun < _COUNT else end_s
            for key, _ in selector.select(max(0.0, due_s - time.monotonic())):
                took_s = time.monotonic() - key.data
                selector.unregister(key.fileobj)
                _close(key.fileobj, server)
                if took_s < expected_s + _LOST_AFTER_S:
                    found.times_s.append(took_s)
            if begun < _COUNT and time.monotonic() >= due_s:
                connection = socket.socket(family, socket.SOCK_STREAM)
                connection.setblocking(False)
                sent_s = time.monotonic()
                connection.connect_ex(server)
                selector.register(connection, selectors.EVENT_WRITE, sent_s)
                begun += 1
        for key in list(selector.get_map().values()):
            _close(key.fileobj, server)
    return found


def _close(connection: object, server: Address) -> None:
    assert isinstance(connection, socket.socket), "only sockets are registered"
    with connection:
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise LinkError(f"{server[0]}:{server[1]}: {errno.errorcode.get(error, error)}: no server answers there")


def added_s(link: LinkProfile) -> tuple[float, float]:
    """What a perfect link adds to a handshake in the median, and how far chance moves that."""
    ways = [model_streams(_stream(way), direction) for way, direction in _ways(link)]
    ways = [models * (max(map(len, ways)) // len(models)) for models in ways]
    return mean_and_chance([_sum_median_s(up, down) for up, down in zip(*ways, strict=True)])


def _sum_median_s(up: ProbeStream, down: ProbeStream) -> float:
    back_ns = dict(reversed(down.arrivals))
    return statistics.median(out_ns + back_ns[number] for number, out_ns in dict(reversed(up.arrivals)).items()) / 1e9


def judge(link: LinkProfile, before: Handshakes, now: Handshakes) -> list[LinkRow]:
    """The rows of a link, there and back: what the network did without it and what it adds, beside what is now."""
    link_s, chance_s = added_s(link)
    expected_s = before.median_s + link_s
    window_s = _SHARE * expected_s + _WITHIN_S + before.spread_s + chance_s
    windows = [loss_window(direction, _stream(way)) for way, direction in _ways(link)]
    expected = _either(before.lost_ratio, *(direction.expected_loss for _, direction in _ways(link)))
    lost = _either(link.up.loss_ratio, link.down.loss_ratio)
    low, high = _either(*(low for low, _ in windows)), _either(before.lost_ratio, *(high for _, high in windows))
    return [
        time_row(_stream("both"), "handshake_ms", link.rtt_s, expected_s, now.median_s, window_s),
        row(_stream("both"), "handshake_loss_ratio", lost, expected, now.lost_ratio, low, high),
    ]


def _ways(link: LinkProfile) -> tuple[tuple[str, Direction], ...]:
    return (("up", link.up), ("down", link.down))


def _stream(way: str) -> ProbeStream:
    return ProbeStream("primary", way, _COUNT, _INTERVAL_S, 0.0)


def _either(*ratios: float) -> float:
    """How much is lost where any of these may lose it."""
    return 1 - math.prod(1 - ratio for ratio in ratios)
