"""How calibration plans its probes and judges what came of them, without a network."""

import dataclasses
import math
from pathlib import Path
from random import Random

import msgspec
import pytest

from loadtests.link.measure.bulk import Arrivals, interval_s, packets_to_send
from loadtests.link.measure.calibrate import (
    calibrate,
    judge_direction,
    judge_rate,
    judge_round_trip,
    loss_window,
    model_streams,
    plan_probes,
)
from loadtests.link.measure.probes import PROBE_BYTES, ProbeStream
from loadtests.link.model.pipeline import Pipeline, carried
from loadtests.link.model.profile import Direction, GilbertElliott, LinkProfile, TimedBursts, Trace
from loadtests.link.model.trace import with_trace

PROBE, FULL = bytes(PROBE_BYTES), bytes(1500)


def probed(asked: Direction, real: Direction | None = None, seed: int = 1, begin_ns: int = 0) -> ProbeStream:
    """The stream planned for `asked`, as a link that does `real` would carry it if the first probe is sent then."""
    stream = plan_probes("primary", "up", asked)
    pipeline = Pipeline(asked if real is None else real, str(seed))
    sent, whole = [], []
    for number in range(stream.count):
        for packet in pipeline.copies(PROBE):
            whole.append(number if packet == PROBE else None)  # a checksum discards what was changed
            sent.append((begin_ns + round(number * stream.interval_s * 1e9), len(sent)))
    stream.arrivals = [
        (number, left_ns - sent_ns)
        for left_ns, copy, sent_ns in carried(pipeline, sent, PROBE_BYTES)
        if (number := whole[copy]) is not None
    ]
    return stream


def probes(count: int) -> ProbeStream:
    return ProbeStream("primary", "up", count, 0.004, 0.1)


def off(asked: Direction, real: Direction | None = None, seed: int = 1) -> list[str]:
    """The figures out of their window."""
    return [row.metric for row in judge_direction(probed(asked, real, seed), asked) if not row.within]


LINKS = [
    Direction(),
    Direction(delay_s=0.3),
    Direction(delay_s=0.02, jitter_s=0.004, loss=0.02),
    Direction(delay_s=0.085, jitter_s=0.085),
    Direction(loss=GilbertElliott(0.01, 0.25)),
    Direction(loss=GilbertElliott(0.2, 0.9, 0.5, 0.1)),
    Direction(delay_s=0.25, rate_bps=2e4, queue_packets=10),
    Direction(delay_s=0.05, jitter_s=0.01, distribution="normal"),
    Direction(delay_s=0.05, jitter_s=0.01, distribution="pareto", keep_order=False),
    Direction(delay_s=0.02, reorder=0.1, duplicate=0.05, corrupt=0.02),
    Direction(delay_s=0.03, reorder=0.2, rate_bps=2e6, queue_packets=20),
    Direction(delay_s=0.03, jitter_s=0.02, distribution="normal", keep_order=False, rate_bps=20e6, queue_packets=20),
    Direction(loss=TimedBursts(0.5, 0.05)),
    Direction(loss=1.0),
]


@pytest.mark.parametrize("direction", LINKS[:-1])
def test_a_perfect_link_is_believed(direction: Direction) -> None:
    """Whatever the seed: a verdict that cries wolf would soon be ignored."""
    assert [found for seed in range(100) if (found := off(direction, seed=seed))] == []


@pytest.mark.parametrize(
    ("real", "metrics"),
    [
        (Direction(delay_s=0.024, jitter_s=0.004, loss=0.02), ["delay_ms"]),
        (Direction(delay_s=0.02, jitter_s=0.001, loss=0.02), ["jitter_ms"]),
        (Direction(delay_s=0.02, jitter_s=0.004, loss=0.12), ["loss_ratio"]),
    ],
)
def test_a_wrong_link_is_not(real: Direction, metrics: list[str]) -> None:
    assert off(Direction(delay_s=0.02, jitter_s=0.004, loss=0.02), real) == metrics


def test_losing_all_is_told_apart_from_a_delay_of_zero() -> None:
    delay, jitter, loss, *_ = judge_direction(probed(Direction(), LINKS[-1]), Direction())
    assert math.isnan(delay.measured)
    assert math.isnan(jitter.measured)
    assert (delay.within, jitter.within, loss.within) == (False, False, False)


def test_a_model_is_made_once_and_nobody_can_spoil_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each calibration of a run asks four times for what is the same each time."""
    direction = Direction(delay_s=0.02, jitter_s=0.0041)
    stream = probed(direction)
    first = model_streams(stream, direction)
    expected = [list(model.arrivals) for model in first]
    for model in first:
        model.arrivals.clear()
    monkeypatch.setattr("loadtests.link.measure.calibrate.Pipeline", None)
    assert [model.arrivals for model in model_streams(stream, direction)] == expected


@pytest.mark.parametrize("direction", [LINKS[-1], Direction(corrupt=1.0), Direction(loss=0.99)])
def test_where_next_to_nothing_arrives_only_the_loss_is_told(direction: Direction) -> None:
    rows = judge_direction(probed(direction), direction)
    assert [(row.metric, row.within) for row in rows] == [("loss_ratio", True)]
    assert off(direction, Direction()) == ["loss_ratio"]


def test_an_outage_has_no_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.link.measure.calibrate.run_probes", lambda streams: None)
    link = LinkProfile(name="test", up=LINKS[-1], down=Direction(corrupt=1.0, rate_bps=1e6, queue_packets=9))
    assert {row.metric for row in calibrate({"primary": link})} == {"loss_ratio"}


#: Mahimahi's constant rate, a slow one, and one with pauses in which probes fill the queue.
TRACES = {"constant": [1], "slow": [12], "pauses": [*range(1, 500, 3), *range(560, 1200, 20), 1400, 1401, 1402]}


@pytest.mark.parametrize("name", TRACES)
def test_a_perfect_link_with_a_trace_is_believed_wherever_in_it_the_probes_begin(name: str, tmp_path: Path) -> None:
    """The probes keep step with a trace of whole milliseconds, so all of them meet the same phase of it."""
    file = tmp_path / "link.trace"
    file.write_text("\n".join(map(str, TRACES[name])))
    direction = Direction(delay_s=0.005, trace=Trace(str(file), 1e6), queue_packets=10)
    for seed in range(100):
        begin_ns = Random(seed).randrange(TRACES[name][-1] * 1_000_000)
        stream = probed(direction, with_trace(direction), seed, begin_ns)
        assert [row for row in judge_direction(stream, direction) if not row.within] == []


def test_a_wrong_link_with_a_trace_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "link.trace").write_text("1")
    asked = Direction(delay_s=0.02, trace=Trace(str(tmp_path / "link.trace"), 12e6), queue_packets=10)
    assert off(asked, Direction(delay_s=0.024)) == ["delay_ms"]
    assert off(asked, Direction(delay_s=0.0205, loss=0.1)) == ["loss_ratio"]


def test_overtaking_is_counted() -> None:
    stream = probed(Direction())
    stream.arrivals[3], stream.arrivals[4] = stream.arrivals[4], stream.arrivals[3]
    row = judge_direction(stream, Direction())[3]
    assert (row.metric, row.measured, row.within) == ("reordered_ratio", 1 / stream.count, False)


def test_the_round_trip_is_both_ways() -> None:
    link = LinkProfile(
        name="test", up=Direction(delay_s=0.02), down=Direction(delay_s=0.01, rate_bps=1e6, queue_packets=9)
    )
    row = judge_round_trip(probed(link.up), probed(link.down), link)
    assert (row.direction, row.metric, row.requested) == ("both", "rtt_ms", 30)
    assert row.measured == pytest.approx(row.expected, abs=1e-3)
    assert row.expected == pytest.approx(30 + (PROBE_BYTES + 14) * 8 / 1e3)
    assert (row.low, row.high) == (pytest.approx(row.expected * 0.98 - 0.5), pytest.approx(row.expected * 1.02 + 0.5))


@pytest.mark.parametrize("direction", LINKS)
def test_probes_take_little_time_and_little_of_the_rate(direction: Direction) -> None:
    stream = plan_probes("primary", "up", direction)
    assert 50 <= stream.count <= 250
    assert stream.count * stream.interval_s < 13
    assert stream.interval_s >= 2 * direction.jitter_s
    assert stream.interval_s * 0.2001 >= direction.transmission_s(PROBE_BYTES)


@pytest.mark.parametrize(
    ("more_s", "excused_s", "is_excused"), [(0.001, 0.002, True), (0.01, 0.002, False), (0.01, math.inf, True)]
)
def test_a_machine_that_stalls_excuses_no_more_than_it_can_have_done(
    more_s: float, excused_s: float, is_excused: bool
) -> None:
    """A link of 20 ms takes longer: probes that met no stall tell a link that is off by far."""
    asked, real = Direction(delay_s=0.02), Direction(delay_s=0.0205 + more_s)
    stream = dataclasses.replace(probed(asked, real), excused_s=excused_s)
    rows = [
        *judge_direction(stream, asked),
        judge_round_trip(stream, stream, LinkProfile(name="test", up=asked, down=asked)),
    ]
    times = {row.metric: row.disturbed for row in rows if not row.within}
    assert times == {"delay_ms": is_excused, "rtt_ms": is_excused}
    assert all(row.disturbed for row in rows if row.metric == "loss_ratio")


def test_the_loss_window_holds_almost_all_of_chance() -> None:
    """Exact binomial quantiles: about one sample in 10,000 falls outside."""
    least, most = loss_window(Direction(loss=0.02), probes(250))
    random = Random(1)
    samples = [sum(random.random() < 0.02 for _ in range(250)) / 250 for _ in range(4000)]
    assert sum(not least <= sample <= most for sample in samples) <= 4
    assert most < 0.08


def test_bursts_widen_the_loss_window() -> None:
    model = GilbertElliott(0.01, 0.25)
    single = loss_window(Direction(loss=model.mean_loss), probes(250))
    assert loss_window(Direction(loss=model), probes(250))[1] > single[1]
    assert loss_window(Direction(loss=0.02), probes(5000))[0] > 0


def full_packets(asked: Direction, real: Direction, seed: int) -> Arrivals:
    """What arrives of the full packets sent to measure the rate of `asked`, over a link that does `real`."""
    pipeline, random = Pipeline(real, str(seed)), Random(seed)
    pause_s = interval_s(asked) * (1 - asked.loss_ratio)
    sent_ns = sorted(
        round((number * pause_s + random.uniform(0, 0.0001)) * 1e9) for number in range(packets_to_send(asked))
    )
    packets = [(at_ns, packet) for at_ns in sent_ns for packet in pipeline.copies(FULL)]
    left = [(pipeline.leaves_ns(at_ns, 1500), packet) for at_ns, packet in packets]
    return Arrivals([at_ns / 1e9 for at_ns, packet in left if at_ns is not None and packet == FULL])


def is_rate_believed(asked: Direction, real: Direction, seed: int) -> bool:
    return judge_rate("primary", "up", asked, full_packets(asked, real, seed)).within


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.3, 0.5])
@pytest.mark.parametrize("queue_packets", [1, 2, 10, 50])
@pytest.mark.parametrize("rate_bps", [1e5, 1e6, 10e6])
def test_the_rate_is_measured_however_short_the_queue(rate_bps: float, queue_packets: int, loss: float) -> None:
    """A queue that is empty at times, because it is short or few packets survive, must not look like a slow link."""
    asked = Direction(delay_s=0.005, rate_bps=rate_bps, queue_packets=queue_packets, loss=loss)
    assert all(is_rate_believed(asked, asked, seed) for seed in range(20))
    for wrong in (0.7, 1.2):
        other = msgspec.structs.replace(asked, rate_bps=rate_bps * wrong)
        assert not any(is_rate_believed(asked, other, seed) for seed in range(3))


@pytest.mark.parametrize("corrupt", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("rate_bps", [1e6, 10e6])
def test_how_many_packets_are_corrupt_while_the_rate_is_measured_is_chance(rate_bps: float, corrupt: float) -> None:
    asked = Direction(rate_bps=rate_bps, queue_packets=20, corrupt=corrupt)
    assert all(is_rate_believed(asked, asked, seed) for seed in range(60))
    other = msgspec.structs.replace(asked, rate_bps=rate_bps * 0.1)
    assert not any(is_rate_believed(asked, other, seed) for seed in range(3))
