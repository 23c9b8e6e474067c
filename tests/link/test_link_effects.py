"""The effects of the emulator, without a network: fed with times and lengths, asked when a packet leaves."""

import itertools
import statistics
from random import Random
from typing import Any

import pytest

from loadtests.link.model.distributions import Distribution, table
from loadtests.link.model.effects import BurstyLoss, Delay, Effect, Opportunities, RandomLoss, Rate, TimedLoss
from loadtests.link.model.pipeline import Pipeline, carried
from loadtests.link.model.profile import Direction, GilbertElliott, TimedBursts, Trace

MS = 1_000_000
PACKETS = 50_000


def made(kind: type[Effect], **asked: Any) -> Effect:
    """An effect that does what a direction asks for."""
    effect, direction = kind(Random(1)), Direction(**asked)
    effect.set(direction, 0)
    return effect


def losses(effect: Effect, packets: int = PACKETS) -> list[bool]:
    lost = [effect.leaves_ns(number, 100) is None for number in range(packets)]
    assert effect.dropped == sum(lost)
    return lost


def bursts(lost: list[bool]) -> list[int]:
    """Lengths of the runs of lost packets."""
    return [len(run) for run in "".join("x" if one else " " for one in lost).split()]


def test_random_loss_loses_its_share_each_on_its_own() -> None:
    lost = losses(made(RandomLoss, loss=0.02))
    assert sum(lost) / PACKETS == pytest.approx(0.02, abs=0.0025)
    assert sum(bursts(lost)) / len(bursts(lost)) == pytest.approx(1.02, abs=0.02)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_random_loss_of_nothing_and_of_all(ratio: float) -> None:
    assert set(losses(made(RandomLoss, loss=ratio), 1000)) == {ratio == 1}


def test_bursts_have_the_mean_loss_and_length_of_the_chain() -> None:
    model = GilbertElliott(0.01, 0.25)
    lost = losses(made(BurstyLoss, loss=model))
    assert sum(lost) / PACKETS == pytest.approx(model.mean_loss, rel=0.1)
    assert sum(bursts(lost)) / len(bursts(lost)) == pytest.approx(4, rel=0.1)


def test_each_state_has_its_own_loss() -> None:
    model = GilbertElliott(0.01, 0.2, 0.5, 0.001)
    assert sum(losses(made(BurstyLoss, loss=model))) / PACKETS == pytest.approx(model.mean_loss, rel=0.15)


def test_the_loss_is_that_of_the_state_before_the_step() -> None:
    """netem draws the transition first, but judges the packet by the state it arrived in: the first one passes."""
    assert losses(made(BurstyLoss, loss=GilbertElliott(1, 0)), 4) == [False, True, True, True]


def test_delay_is_exact_without_jitter() -> None:
    delay = made(Delay, delay_s=0.02)
    assert [delay.leaves_ns(at, 100) for at in (0, 5, 7 * MS)] == [20 * MS, 20 * MS + 5, 27 * MS]


def test_jitter_is_uniform_for_packets_far_apart() -> None:
    delay = made(Delay, delay_s=0.02, jitter_s=0.004)
    taken = sorted((delay.leaves_ns(at, 100) or 0) - at for at in range(0, PACKETS * 8 * MS, 8 * MS))
    assert taken[0] >= 16 * MS
    assert taken[-1] < 24 * MS
    quartiles = [taken[PACKETS * quarter // 4] / MS for quarter in (1, 2, 3)]
    assert quartiles == [pytest.approx(18, abs=0.1), pytest.approx(20, abs=0.1), pytest.approx(22, abs=0.1)]


def test_jitter_never_lets_a_packet_overtake() -> None:
    delay = made(Delay, delay_s=0.02, jitter_s=0.02)
    left = [delay.leaves_ns(at, 100) or 0 for at in range(0, 1000 * MS, MS)]
    assert left == sorted(left)


def test_rate_sends_one_packet_after_the_other() -> None:
    """1 Mbit/s: 986 bytes and 14 of Ethernet take 8 ms."""
    rate = made(Rate, rate_bps=1e6, queue_packets=10)
    assert [rate.leaves_ns(0, 986), rate.leaves_ns(0, 986), rate.leaves_ns(100 * MS, 986)] == [
        8 * MS,
        16 * MS,
        108 * MS,
    ]


def test_a_full_queue_drops_its_tail_until_a_packet_has_left() -> None:
    rate = made(Rate, rate_bps=1e6, queue_packets=2)
    assert [rate.leaves_ns(0, 986) for _ in range(3)] == [8 * MS, 16 * MS, None]
    assert rate.leaves_ns(8 * MS - 1, 986) is None
    assert rate.leaves_ns(8 * MS, 986) == 24 * MS
    assert rate.dropped == 2


BUSY = Direction(delay_s=0.02, jitter_s=0.004, loss=0.1, rate_bps=5e6, queue_packets=20)


def fates(seed: str, direction: Direction = BUSY) -> list[int | None]:
    pipeline = Pipeline(direction, seed)
    return [pipeline.leaves_ns(number * MS, 500) for number in range(1000)]


def test_the_same_seed_makes_the_same_decisions() -> None:
    assert fates("1/primary/up") == fates("1/primary/up")


def test_each_path_and_direction_has_its_own_randomness() -> None:
    lost = [[fate is None for fate in fates(f"1/{name}")] for name in ("primary/up", "primary/down", "secondary/up")]
    assert len({tuple(one) for one in lost}) == 3
    both = sum(one and other for one, other in zip(lost[0], lost[2], strict=True))
    assert both / 1000 == pytest.approx(0.01, abs=0.012)


def test_loss_does_not_change_with_delay() -> None:
    """Each effect has a stream of its own, so changing one leaves the decisions of the others alone."""
    still = Direction(loss=0.1)
    assert [fate is None for fate in fates("1", BUSY)] == [fate is None for fate in fates("1", still)]


def test_a_lost_packet_does_not_use_the_rate() -> None:
    pipeline = Pipeline(Direction(loss=GilbertElliott(1, 0), rate_bps=1e6, queue_packets=5), "1")
    assert [pipeline.leaves_ns(0, 986) for _ in range(3)] == [8 * MS, None, None]
    assert pipeline.dropped_packets == 2


def test_delay_comes_before_rate() -> None:
    """Packets queue at the far end, when they have arrived there: as in netem."""
    pipeline = Pipeline(Direction(delay_s=0.02, rate_bps=1e6, queue_packets=1), "1")
    assert [pipeline.leaves_ns(at, 986) for at in (0, MS, 8 * MS)] == [28 * MS, None, 36 * MS]


def test_nothing_asked_for_is_nothing_done() -> None:
    pipeline = Pipeline(Direction(), "1")
    assert pipeline.queue is None
    assert pipeline.leaves_ns(5, 100) == 5


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [("uniform", 0, 0.577), ("normal", 0, 1), ("pareto", -0.034, 0.820), ("paretonormal", -0.025, 0.834)],
)
def test_distributions_have_the_moments_of_the_tables_of_iproute2(
    name: Distribution, mean: float, deviation: float
) -> None:
    """Those of the files that Debian ships; the jitter of `10ms pareto` has a standard deviation of 8.2 ms."""
    values = table(name)
    assert statistics.fmean(values) == pytest.approx(mean, abs=0.005)
    assert statistics.pstdev(values) == pytest.approx(deviation, abs=0.01)
    assert max(map(abs, values)) <= 4


@pytest.mark.parametrize("name", ["normal", "pareto", "paretonormal"])
def test_jitter_follows_its_distribution(name: Distribution) -> None:
    delay = made(Delay, delay_s=0.1, jitter_s=0.01, distribution=name)
    taken = sorted(((delay.leaves_ns(at, 100) or 0) - at) / MS for at in range(0, PACKETS * 100 * MS, 100 * MS))
    for share in (0.05, 0.25, 0.5, 0.75):
        wanted = 100 + 10 * table(name)[int(share * len(table(name)))]
        assert taken[int(share * PACKETS)] == pytest.approx(wanted, abs=0.4)


def test_jitter_in_any_order_overtakes() -> None:
    delay = made(Delay, delay_s=0.02, jitter_s=0.02, keep_order=False)
    left = [delay.leaves_ns(at, 100) or 0 for at in range(0, 1000 * MS, MS)]
    assert left != sorted(left)


def test_a_delay_below_zero_is_none() -> None:
    delay = made(Delay, delay_s=0.01, jitter_s=0.01, distribution="normal", keep_order=False)
    assert min((delay.leaves_ns(at, 100) or 0) - at for at in range(10_000)) == 0


def test_reordered_packets_skip_the_delay() -> None:
    delay = made(Delay, delay_s=0.02, reorder=0.25)
    taken = [(delay.leaves_ns(at, 100) or 0) - at for at in range(PACKETS)]
    assert set(taken) == {0, 20 * MS}
    assert taken.count(0) / PACKETS == pytest.approx(0.25, abs=0.01)


def test_bursts_in_time_last_as_long_however_many_packets_there_are() -> None:
    model = TimedBursts(0.9, 0.1)
    for interval_ns in (MS, 10 * MS):
        loss = made(TimedLoss, loss=model)
        lost = [loss.leaves_ns(at, 100) is None for at in range(0, 4000 * 1000 * MS, interval_ns)]
        assert sum(lost) / len(lost) == pytest.approx(0.1, abs=0.01)
        mean_ms = sum(bursts(lost)) / len(bursts(lost)) * interval_ns / MS
        assert mean_ms == pytest.approx(100, rel=0.12)
        assert loss.dropped == sum(lost)


@pytest.fixture
def trace() -> Trace:
    """Opportunities at 10, 10 and 40 ms, and again from 40 ms on."""
    return Trace("link.trace", 0.9e6, (10, 10, 40))


def test_a_trace_says_when_packets_leave(trace: Trace) -> None:
    """A full packet uses an opportunity, small ones share it, what comes too late waits for the next turn."""
    link = made(Opportunities, trace=trace, queue_packets=10)
    sent = [(0, 1500), (0, 1500), (0, 700), (5 * MS, 700), (45 * MS, 40), (51 * MS, 1500)]
    assert [link.leaves_ns(*one) for one in sent] == [at * MS for at in (10, 10, 40, 40, 50, 80)]


def test_a_packet_may_use_several_opportunities_and_a_full_queue_drops(trace: Trace) -> None:
    link = made(Opportunities, trace=trace, queue_packets=2)
    assert [link.leaves_ns(0, size) for size in (2000, 1500, 40)] == [10 * MS, 40 * MS, None]
    assert link.dropped == 1


def test_nothing_is_copied_unless_asked_for() -> None:
    assert not Pipeline(Direction(), "1").copies_packets
    assert Pipeline(Direction(duplicate=1.0), "1").copies(b"abc") == [b"abc", b"abc"]


def test_a_corrupt_packet_has_one_bit_flipped() -> None:
    (changed,) = Pipeline(Direction(corrupt=1.0), "1").copies(bytes(100))
    assert sum(byte.bit_count() for byte in changed) == 1


def test_a_change_leaves_the_other_decisions_and_the_order_alone() -> None:
    """The queue is still full, the delay line still holds what entered it, the losses are those of the seed."""
    pipeline = Pipeline(Direction(delay_s=0.1, loss=0.5), "1")
    fates = [pipeline.leaves_ns(at * MS, 100) for at in range(50)]
    pipeline.set(Direction(delay_s=0.01, loss=0.5), 50 * MS)
    fates += [pipeline.leaves_ns(at * MS, 100) for at in range(50, 100)]
    still = Pipeline(Direction(loss=0.5), "1")
    assert [fate is None for fate in fates] == [still.leaves_ns(at * MS, 100) is None for at in range(100)]
    left = [fate for fate in fates if fate is not None]
    assert left == sorted(left)


def test_a_delay_that_ends_lets_nobody_overtake_who_still_waits() -> None:
    pipeline = Pipeline(Direction(delay_s=0.1), "1")
    assert pipeline.leaves_ns(0, 100) == 100 * MS
    pipeline.set(Direction(), 50 * MS)
    assert [pipeline.leaves_ns(at * MS, 100) for at in (60, 99, 120)] == [100 * MS, 100 * MS, 120 * MS]


def test_who_skips_the_delay_overtakes_those_who_wait_for_the_rate_after_it() -> None:
    """They come to the rate when they leave the delay: one that has not left it yet is in nobody's way."""
    pipeline = Pipeline(Direction(delay_s=0.02, reorder=0.5, rate_bps=1e6, queue_packets=3), "1")
    sent = [(number * MS, number) for number in range(40)]
    left = carried(pipeline, sent, 111)
    skipped = [number for left_ns, number, sent_ns in left if left_ns - sent_ns < 10 * MS]
    waited = [number for left_ns, number, sent_ns in left if left_ns - sent_ns >= 20 * MS]
    assert len(skipped) + len(waited) == len(left) > 30
    assert min(len(skipped), len(waited)) > 10
    assert skipped[5] > waited[0], "it arrives before"
    ends_ns = [left_ns for left_ns, _, _ in left]
    assert min(b - a for a, b in itertools.pairwise(ends_ns)) >= MS, "no more than the rate carries"
