"""What the links were asked to do beside what they do: the rows of `link.csv`.

Nobody who reads a result should have to wonder whether the link was really like that. The window of each figure is wide
enough for chance (a right link falls outside about once in 10,000 rows) and for nothing else.
"""

import bisect
import math
import statistics
from itertools import accumulate, pairwise

import msgspec

from loadtests.link.probes import PROBE_BYTES, ProbeStream, run_probes
from loadtests.link.profile import Direction, GilbertElliott, LinkProfile

_PROBES, _LEAST_PROBES = 250, 50
_INTERVAL_S, _BUDGET_S = 0.004, 2.5
#: Probes take at most this share of a link's rate.
_SHARE_OF_RATE = 0.2

#: A delay may be off by this share of it and this much.
_DELAY_SHARE, _DELAY_S = 0.05, 0.001
_JITTER_S = 0.0005
#: Chance alone moves a figure out of its window once in 10,000 times.
_ALPHA = 1e-4
_STANDARD_ERRORS = statistics.NormalDist().inv_cdf(1 - _ALPHA / 2)


class LinkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one link: asked for, expected, measured."""

    path: str
    #: `up` (client → server), `down`, or `both` (there and back).
    direction: str
    #: `delay_ms` and `rtt_ms` (medians), `jitter_ms` (interquartile range of the delay, which is J for `± J`),
    #: `loss_ratio`, `reordered_ratio`; the unit is in the name.
    metric: str
    #: What the profile says.
    requested: float
    #: What a perfect link would show: with the time that a probe occupies a link with a rate.
    expected: float
    measured: float
    #: The window around `expected` in which `measured` is believed.
    low: float
    high: float
    within: bool
    #: Probes sent (in each direction).
    probes: int


def calibrate(links: dict[str, LinkProfile]) -> list[LinkRow]:
    """Probe every path in both directions; takes one to three seconds and expects links without other traffic."""
    streams = [
        plan_probes(path, name, direction)
        for path, link in links.items()
        for name, direction in (("up", link.up), ("down", link.down))
    ]
    run_probes(streams)
    rows: list[LinkRow] = []
    for path, link in links.items():
        up, down = (stream for stream in streams if stream.path == path)
        rows += judge_direction(up, link.up)
        rows += judge_direction(down, link.down)
        rows.append(judge_round_trip(up, down, link))
    return rows


def plan_probes(path: str, name: str, direction: Direction) -> ProbeStream:
    """Far enough apart not to fill the link, and not to wait for one another because of jitter."""
    spread_s = 2 * direction.jitter_s
    interval_s = max(_INTERVAL_S, spread_s, direction.transmission_s(PROBE_BYTES) / _SHARE_OF_RATE)
    count = min(_PROBES, max(_LEAST_PROBES, int(_BUDGET_S / interval_s)))
    longest_s = direction.delay_s + direction.jitter_s + direction.transmission_s(PROBE_BYTES)
    return ProbeStream(path, name, count, interval_s, longest_s)


def judge_direction(stream: ProbeStream, direction: Direction) -> list[LinkRow]:
    """The rows of one direction of one path."""
    expected_s = direction.delay_s + direction.transmission_s(PROBE_BYTES)
    chance_s = _chance_s(stream, direction)
    delay_window_s = _DELAY_SHARE * expected_s + _DELAY_S + chance_s
    jitter_s = direction.jitter_s
    loss, lost = direction.expected_loss, 1 - len(stream.arrivals) / stream.count
    overtaken = sum(later < earlier for (earlier, _), (later, _) in pairwise(stream.arrivals)) / stream.count
    return [
        _row(stream, "delay_ms", *_around_ms(direction.delay_s, expected_s, median_s(stream), delay_window_s)),
        _row(stream, "jitter_ms", *_around_ms(jitter_s, jitter_s, spread_s(stream), _JITTER_S + chance_s)),
        _row(stream, "loss_ratio", loss, loss, lost, *loss_window(direction, stream.count)),
        _row(stream, "reordered_ratio", 0, 0, overtaken, 0, 0),
    ]


def judge_round_trip(up: ProbeStream, down: ProbeStream, link: LinkProfile) -> LinkRow:
    """The row of the round-trip time of one path: up and down together."""
    expected_s = link.rtt_s + link.up.transmission_s(PROBE_BYTES) + link.down.transmission_s(PROBE_BYTES)
    chance_s = math.hypot(_chance_s(up, link.up), _chance_s(down, link.down))
    window_s = _DELAY_SHARE * expected_s + _DELAY_S + chance_s
    row = _row(up, "rtt_ms", *_around_ms(link.rtt_s, expected_s, median_s(up) + median_s(down), window_s))
    return msgspec.structs.replace(row, direction="both")


def median_s(stream: ProbeStream) -> float:
    """Median one-way delay in seconds; not a number if nothing arrived."""
    return statistics.median(delay_ns for _, delay_ns in stream.arrivals) / 1e9 if stream.arrivals else math.nan


def spread_s(stream: ProbeStream) -> float:
    """Interquartile range of the one-way delay in seconds; not a number if too little arrived."""
    if len(stream.arrivals) < 4:
        return math.nan
    first, _, third = statistics.quantiles((delay_ns for _, delay_ns in stream.arrivals), n=4)
    return (third - first) / 1e9


def loss_window(direction: Direction, sent: int) -> tuple[float, float]:
    """The shares of `sent` packets between which chance leaves the loss of a right link: quantiles of the binomial.

    Packets lost in one burst are one witness rather than many: with a Gilbert–Elliott chain, whose memory is 1 - p - r,
    the sample counts as that much smaller.
    """
    loss = direction.expected_loss
    if loss in (0, 1):
        return loss, loss
    if isinstance(direction.loss, GilbertElliott):
        memory = max(0.0, 1 - direction.loss.p - direction.loss.r)
        sent = max(1, round(sent * (1 - memory) / (1 + memory)))
    cumulative = list(accumulate(_binomial(lost, sent, loss) for lost in range(sent + 1)))
    fewest = bisect.bisect_left(cumulative, _ALPHA / 2)
    most = bisect.bisect_left(cumulative, 1 - _ALPHA / 2)
    return fewest / sent, min(most, sent) / sent


def _binomial(successes: int, trials: int, probability: float) -> float:
    """Probability of so many successes; by logarithms, for powers of large samples underflow."""
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(ways + successes * math.log(probability) + (trials - successes) * math.log1p(-probability))


def _chance_s(stream: ProbeStream, direction: Direction) -> float:
    """How far chance moves the median, and the interquartile range, of delays uniform in ± jitter."""
    return _STANDARD_ERRORS * direction.jitter_s / math.sqrt(max(1, len(stream.arrivals)))


def _around_ms(requested_s: float, expected_s: float, measured_s: float, window_s: float) -> tuple[float, ...]:
    """The figures of a row from seconds: requested, expected, measured, low, high."""
    figures_s = (requested_s, expected_s, measured_s, max(0.0, expected_s - window_s), expected_s + window_s)
    return tuple(figure_s * 1e3 for figure_s in figures_s)


def _row(
    stream: ProbeStream, metric: str, requested: float, expected: float, measured: float, low: float, high: float
) -> LinkRow:
    return LinkRow(
        path=stream.path,
        direction=stream.direction,
        metric=metric,
        requested=requested,
        expected=expected,
        measured=measured,
        low=low,
        high=high,
        within=low <= measured <= high,
        probes=stream.count,
    )
