"""What the links were asked to do beside what they do: the rows of `link.csv`.

Nobody who reads a result should have to wonder whether the link was really like that. The window of each figure is wide
enough for chance (a right link falls outside about once in 10,000 rows) and for nothing else.
"""

import bisect
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from random import Random

import msgspec
import numpy as np

from loadtests.link.measure.bulk import Arrivals, bulk_s, busy_share, measure_rate, packets_carried
from loadtests.link.measure.probes import PROBE_BYTES, ProbeStream, run_probes
from loadtests.link.model.pipeline import Pipeline, carried
from loadtests.link.model.profile import Direction, GilbertElliott, LinkProfile, TimedBursts
from loadtests.link.model.trace import with_trace
from loadtests.stalls.intervals import MARGIN_NS, Interval, Intervals

_PROBES, _LEAST_PROBES = 250, 50
_INTERVAL_S, _BUDGET_S = 0.004, 2.5
#: Fewer arrivals tell no quartiles.
_LEAST_ARRIVED = 4
#: Probes take at most this share of a link's rate.
_SHARE_OF_RATE = 0.2

#: What met a disturbance is measured anew so often at most.
_ROUNDS = 4
#: Of the probes; where more met a stall, the machine delays the others too, each by less than counts as a stall.
_MOST_SPOILED = 0.05
#: Such a delay (s): less than counts as a stall, when a probe is sent and again when it arrives.
_HIDDEN_S = 0.002
#: Of the time that a rate takes to measure; a machine that stalls for more is not quiet for as long as one more takes.
_MOST_STALLED = 0.1

#: A delay may be off by this share of it and this much.
DELAY_SHARE, DELAY_S = 0.02, 0.0005
_JITTER_S = 0.0005
#: A rate may be off by this share; where most packets are lost before they reach it, it is not measured.
RATE_SHARE, _MOST_LOSS = 0.03, 0.5
#: Chance alone moves a figure out of its window once in 10,000 times.
_ALPHA = 1e-4
_STANDARD_ERRORS = statistics.NormalDist().inv_cdf(1 - _ALPHA / 2)
#: So many perfect links tell what chance does to a figure; a window keeps room for what so few do not show.
_MODELS, _ROOM = 30, 1.3


class LinkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one link: asked for, expected, measured."""

    path: str
    #: `up` (client → server), `down`, or `both` (there and back).
    direction: str
    #: `delay_ms` and `rtt_ms` (medians), `jitter_ms` (interquartile range of the delay, which is J for `± J`),
    #: `loss_ratio`, `reordered_ratio`, `duplicated_ratio`, `rate_bps`; the unit is in the name.
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
    #: Probes sent (in each direction); of a rate, full packets that arrived.
    probes: int
    #: The machine stalled so much that what is off may be its own fault rather than the link's.
    disturbed: bool = False


def calibrate(links: dict[str, LinkProfile], disturbances: Callable[[], list[Interval]] = list) -> list[LinkRow]:
    """Probe every path in both directions; takes some seconds and expects links without other traffic.

    Args:
        disturbances: asked for the times in which the machine did not let us or the link run: what met one is measured
            anew, up to a few times.
    """
    streams = _probed(_planned(links), disturbances)
    rows: list[LinkRow] = []
    for path, link in links.items():
        up, down = (stream for stream in streams if stream.path == path)
        rows += judge_direction(up, link.up)
        rows += judge_direction(down, link.down)
        if enough_arrive(up, link.up) and enough_arrive(down, link.down):
            rows.append(judge_round_trip(up, down, link))
        for name, direction in (("up", link.up), ("down", link.down)):
            if _has_rate(direction):
                arrivals = _undisturbed_rate(path, name, direction, disturbances)
                rows.append(judge_rate(path, name, direction, arrivals))
    return rows


def calibration_s(links: Mapping[str, LinkProfile]) -> float:
    """How long calibration takes about, where nothing is disturbed: all probes at once, then one rate after another."""
    planned = _planned(links)
    probes_s = max(stream.count * stream.interval_s + stream.longest_s for stream, _ in planned)
    return probes_s + sum(bulk_s(direction) for _, direction in planned if _has_rate(direction))


def _planned(links: Mapping[str, LinkProfile]) -> list[tuple[ProbeStream, Direction]]:
    return [
        (plan_probes(path, name, direction), direction)
        for path, link in links.items()
        for name, direction in (("up", link.up), ("down", link.down))
    ]


def _has_rate(direction: Direction) -> bool:
    """Whether enough packets reach the rate, and arrive, to measure it."""
    return bool(direction.rate_bps) and direction.loss_ratio <= _MOST_LOSS and direction.expected_loss < 1


def _probed(
    directions: list[tuple[ProbeStream, Direction]], disturbances: Callable[[], list[Interval]]
) -> list[ProbeStream]:
    """The streams after their probes were sent; those that met a disturbance are left out, and others sent instead."""
    wanted = [stream.count for stream, _ in directions]
    sent = [0 for _ in directions]
    kept: list[ProbeStream] = [dataclasses.replace(stream, count=0) for stream, _ in directions]
    for _round in range(_ROUNDS):
        # All are sent again if one lacks some, for links are measured with traffic on all paths.
        streams = [dataclasses.replace(stream, arrivals=[], sent_ns={}) for stream, _ in directions]
        run_probes(streams)
        met = Intervals(disturbances())
        for index, (_, direction) in enumerate(directions):
            sent[index] += len(streams[index].sent_ns)
            kept[index] = joined(kept[index], undisturbed(streams[index], direction, met))
        if all(_is_enough(one.count, *counts) for one, *counts in zip(kept, sent, wanted, strict=True)):
            break
    return [
        # Too few to tell anything: then all count, and the figures say how the machine was.
        dataclasses.replace(stream, excused_s=math.inf)
        if one.count < _LEAST_PROBES
        else dataclasses.replace(one, excused_s=_HIDDEN_S if one.count < (1 - _MOST_SPOILED) * count else 0.0)
        for one, stream, count in zip(kept, streams, sent, strict=True)
    ]


def _is_enough(kept: int, sent: int, wanted: int) -> bool:
    """As many as are wanted; or as tell anything, if too many are spoiled already, however quiet the other rounds."""
    is_spoiled = sent - kept > _MOST_SPOILED * _ROUNDS * wanted
    return kept >= (_LEAST_PROBES if is_spoiled else wanted)


def undisturbed(stream: ProbeStream, direction: Direction, met: Intervals) -> ProbeStream:
    """The stream without the probes that met a disturbance when they were sent or when they were to arrive.

    When they did arrive has no say: slow ones would meet more.
    """
    numbers = np.array(sorted(stream.sent_ns), np.int64)
    sent_ns = np.array([stream.sent_ns[number] for number in numbers], np.int64)
    early_ns = max(0.0, direction.delay_s - direction.jitter_s) * 1e9
    late_ns = (direction.delay_s + direction.jitter_s + direction.transmission_s(PROBE_BYTES)) * 1e9
    spoiled = met.meet(sent_ns - MARGIN_NS, sent_ns + MARGIN_NS)
    spoiled |= met.meet(sent_ns + round(early_ns) - MARGIN_NS, sent_ns + round(late_ns) + MARGIN_NS)
    good = {int(number) for number in numbers[~spoiled]}
    return dataclasses.replace(
        stream,
        count=len(good),
        sent_ns={number: stream.sent_ns[number] for number in good},
        arrivals=[(number, delay_ns) for number, delay_ns in stream.arrivals if number in good],
    )


def joined(first: ProbeStream, second: ProbeStream) -> ProbeStream:
    """Both streams as one; the numbers of the second follow those of the first."""
    beyond = max(first.sent_ns, default=-1) + 1
    return dataclasses.replace(
        first,
        count=first.count + second.count,
        sent_ns=first.sent_ns | {number + beyond: at_ns for number, at_ns in second.sent_ns.items()},
        arrivals=first.arrivals + [(number + beyond, delay_ns) for number, delay_ns in second.arrivals],
    )


def _undisturbed_rate(
    path: str, name: str, direction: Direction, disturbances: Callable[[], list[Interval]]
) -> Arrivals:
    """The arrivals of a bulk that met no disturbance, or of the last of a few."""
    for _round in range(_ROUNDS):
        begin_ns = time.monotonic_ns()
        arrivals = measure_rate(path, name, direction)
        span_ns = np.array([begin_ns, time.monotonic_ns()])
        met = Intervals(disturbances())
        if not met.meet(span_ns[:1], span_ns[1:]).any():
            return arrivals
        if met.overlap_ns(span_ns[:1], span_ns[1:]).sum() > _MOST_STALLED * np.ptp(span_ns):
            break
    return dataclasses.replace(arrivals, is_disturbed=True)


def plan_probes(path: str, name: str, direction: Direction) -> ProbeStream:
    """Far enough apart not to fill the link, and not to wait for one another because of jitter."""
    # Tables reach four times as far as the jitter, but seldom.
    spread_s = (2 if direction.distribution == "uniform" else 4) * direction.jitter_s
    interval_s = max(_INTERVAL_S, spread_s, direction.transmission_s(PROBE_BYTES) / _SHARE_OF_RATE)
    count = min(_PROBES, max(_LEAST_PROBES, int(_BUDGET_S / interval_s)))
    longest_s = direction.delay_s + 4 * direction.jitter_s + direction.transmission_s(PROBE_BYTES)
    return ProbeStream(path, name, count, interval_s, longest_s)


def judge_direction(stream: ProbeStream, direction: Direction) -> list[LinkRow]:
    """The rows of one direction of one path; where next to nothing arrives, its loss is all there is to tell."""
    models = model_streams(stream, direction)
    queue_loss, queue_chance = mean_and_chance([lost_ratio(model) for model in models])
    low, high = loss_window(direction, stream)
    expected_loss = 1 - (1 - direction.expected_loss) * (1 - queue_loss)
    window = low, min(1.0, high + queue_loss + queue_chance)
    loss = row(stream, "loss_ratio", direction.loss_ratio, expected_loss, lost_ratio(stream), *window)
    if not enough_arrive(stream, direction):
        return [loss]
    delay_s, delay_chance_s = mean_and_chance([median_s(model) for model in models])
    jitter_s, jitter_chance_s = mean_and_chance([spread_s(model) for model in models])
    delay_window_s = DELAY_SHARE * delay_s + DELAY_S + delay_chance_s
    jitter_window_s = _JITTER_S + jitter_chance_s
    rows = [
        time_row(stream, "delay_ms", direction.delay_s, delay_s, median_s(stream), delay_window_s),
        time_row(stream, "jitter_ms", direction.jitter_s, jitter_s, spread_s(stream), jitter_window_s),
        loss,
    ]
    for metric, requested, ratio in (
        ("reordered_ratio", direction.reorder, reordered_ratio),
        ("duplicated_ratio", direction.duplicate, duplicated_ratio),
    ):
        expected, chance = mean_and_chance([ratio(model) for model in models])
        chance += 1 / stream.count if chance else 0  # of a few packets chance takes or adds a whole one
        rows.append(
            row(stream, metric, requested, expected, ratio(stream), max(0.0, expected - chance), expected + chance)
        )
    return rows


def enough_arrive(stream: ProbeStream, direction: Direction) -> bool:
    """Whether a right link brings enough of the probes to tell how long they take."""
    _, most_lost = loss_window(direction, stream)
    return stream.count * (1 - most_lost) >= _LEAST_ARRIVED


def judge_round_trip(up: ProbeStream, down: ProbeStream, link: LinkProfile) -> LinkRow:
    """The row of the round-trip time of one path: up and down together."""
    ways = ((up, link.up), (down, link.down))
    expected = [mean_and_chance([median_s(model) for model in model_streams(*way)]) for way in ways]
    expected_s = sum(delay_s for delay_s, _ in expected)
    window_s = DELAY_SHARE * expected_s + DELAY_S + math.hypot(*(chance_s for _, chance_s in expected))
    both = dataclasses.replace(up, direction="both", excused_s=up.excused_s + down.excused_s)
    return time_row(both, "rtt_ms", link.rtt_s, expected_s, median_s(up) + median_s(down), window_s)


def judge_rate(path: str, name: str, direction: Direction, arrivals: Arrivals) -> LinkRow:
    """The row of the rate; corrupt packets occupy the link, but do not arrive, and how many they are is chance."""
    assert direction.rate_bps is not None, "only a link with a rate has one"
    expected_bps = direction.rate_bps * (1 - direction.corrupt)
    whole = packets_carried(direction) * (1 - direction.corrupt)
    chance = _STANDARD_ERRORS * math.sqrt(direction.corrupt / whole)
    low = max(0.0, expected_bps * busy_share(direction) * (1 - RATE_SHARE - chance))
    high = expected_bps * (1 + RATE_SHARE + chance)
    excused_s = math.inf if arrivals.is_disturbed else 0.0
    stream = ProbeStream(path, name, len(arrivals.times_s), 0, 0, excused_s=excused_s)
    return row(stream, "rate_bps", direction.rate_bps, expected_bps, arrivals.rate_bps, low, high)


def model_streams(stream: ProbeStream, direction: Direction) -> list[ProbeStream]:
    """What perfect links make of the same probes: one if chance has no say in it, else many.

    Losses are left out, since they have a window of their own, but for those of a queue that a pause of a trace fills.
    """
    sure = msgspec.structs.replace(with_trace(direction), loss=0.0, corrupt=0.0)
    models = _model_arrivals(stream.count, stream.interval_s, sure)
    return [dataclasses.replace(stream, arrivals=list(arrivals)) for arrivals in models]


@functools.lru_cache(maxsize=8)  # of both ways of two paths, before and after the load
def _model_arrivals(count: int, interval_s: float, sure: Direction) -> list[list[tuple[int, int]]]:
    """In order of arrival, as in a stream. Which is the same whenever it is asked for: a model's chance has a seed."""
    by_chance = sure.jitter_s or sure.reorder or sure.duplicate or sure.trace
    models = []
    for number in range(_MODELS if by_chance else 1):
        pipeline = Pipeline(sure, f"model {number}")
        sendings_ns = _model_sendings_ns(count, interval_s, sure, Random(f"model {number}/sending"))
        copies = [
            (sent_ns, sequence) for sequence, sent_ns in enumerate(sendings_ns) for _ in pipeline.copies(bytes(1))
        ]
        models.append(
            [(sequence, left_ns - sent_ns) for left_ns, sequence, sent_ns in carried(pipeline, copies, PROBE_BYTES)]
        )
    return models


def _model_sendings_ns(count: int, interval_s: float, direction: Direction, random: Random) -> list[int]:
    """When a model sends each probe.

    Where a trace is when the probes begin is chance, and the least lateness decides which opportunity a probe meets.
    """
    steady_ns = [round(sequence * interval_s * 1e9) for sequence in range(count)]
    if direction.trace is None:
        return steady_ns
    start_ns = random.randrange(direction.trace.times_ms[-1] * 1_000_000)
    return [start_ns + sent_ns + random.randrange(round(DELAY_S * 1e9)) for sent_ns in steady_ns]


def mean_and_chance(figures: list[float]) -> tuple[float, float]:
    """The mean, and how far chance moves one figure from it."""
    chance = statistics.stdev(figures) * _STANDARD_ERRORS * _ROOM if len(figures) > 1 else 0.0
    return statistics.fmean(figures), chance


def lost_ratio(stream: ProbeStream) -> float:
    """Share of probes of which nothing arrives."""
    return 1 - stream.arrived / stream.count


def reordered_ratio(stream: ProbeStream) -> float:
    """Share of probes that arrive just behind a later one."""
    return sum(later < earlier for (earlier, _), (later, _) in pairwise(stream.arrivals)) / stream.count


def duplicated_ratio(stream: ProbeStream) -> float:
    """Share of probes that arrive once more."""
    return (len(stream.arrivals) - stream.arrived) / stream.count


def median_s(stream: ProbeStream) -> float:
    """Median one-way delay in seconds; not a number if nothing arrived."""
    return statistics.median(delay_ns for _, delay_ns in stream.arrivals) / 1e9 if stream.arrivals else math.nan


def spread_s(stream: ProbeStream) -> float:
    """Interquartile range of the one-way delay in seconds; not a number if too little arrived."""
    if len(stream.arrivals) < _LEAST_ARRIVED:
        return math.nan
    first, _, third = statistics.quantiles((delay_ns for _, delay_ns in stream.arrivals), n=4)
    return (third - first) / 1e9


def loss_window(direction: Direction, stream: ProbeStream, alpha: float = _ALPHA) -> tuple[float, float]:
    """The shares of the probes between which chance leaves the loss of a right link: quantiles of the binomial.

    Packets lost in one burst are one witness rather than many: with a Gilbert–Elliott chain, whose memory from one
    packet to the next is 1 - p - r, the sample counts as that much smaller.
    """
    loss, sent = direction.expected_loss, stream.count
    if loss in (0, 1):
        return loss, loss
    memory = 0.0
    if isinstance(direction.loss, GilbertElliott):
        memory = max(0.0, 1 - direction.loss.p - direction.loss.r)
    elif isinstance(direction.loss, TimedBursts):
        memory = math.exp(-stream.interval_s * (1 / direction.loss.good_s + 1 / direction.loss.bad_s))
    sent = max(1, round(sent * (1 - memory) / (1 + memory)))
    cumulative = list(accumulate(_binomial(lost, sent, loss) for lost in range(sent + 1)))
    fewest = bisect.bisect_left(cumulative, alpha / 2)
    most = bisect.bisect_left(cumulative, 1 - alpha / 2)
    return fewest / sent, min(most, sent) / sent


def _binomial(successes: int, trials: int, probability: float) -> float:
    """Probability of so many successes; by logarithms, for powers of large samples underflow."""
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(ways + successes * math.log(probability) + (trials - successes) * math.log1p(-probability))


def time_row(
    stream: ProbeStream, metric: str, requested_s: float, expected_s: float, measured_s: float, window_s: float
) -> LinkRow:
    """The row of a time, which may be off by its window; one that is off by far is so whatever the machine did."""
    figures_s = (requested_s, expected_s, measured_s, max(0.0, expected_s - window_s), expected_s + window_s)
    found = row(stream, metric, *(figure_s * 1e3 for figure_s in figures_s))
    may_be_ours = abs(measured_s - expected_s) <= window_s + stream.excused_s
    return msgspec.structs.replace(found, disturbed=found.disturbed and may_be_ours)


def row(
    stream: ProbeStream, metric: str, requested: float, expected: float, measured: float, low: float, high: float
) -> LinkRow:
    """What was found beside what was asked for."""
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
        disturbed=stream.excused_s > 0,
    )
