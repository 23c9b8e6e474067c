"""The effects of the emulator, without a network: fed with times and lengths, asked when a packet leaves."""

from random import Random

import pytest

from loadtests.link.effects import BurstyLoss, Delay, Effect, RandomLoss, Rate
from loadtests.link.pipeline import build_pipeline
from loadtests.link.profile import Direction, GilbertElliott

MS = 1_000_000
PACKETS = 50_000


def losses(effect: Effect, packets: int = PACKETS) -> list[bool]:
    lost = [effect.leaves_ns(number, 100) is None for number in range(packets)]
    assert effect.dropped == sum(lost)
    return lost


def bursts(lost: list[bool]) -> list[int]:
    """Lengths of the runs of lost packets."""
    return [len(run) for run in "".join("x" if one else " " for one in lost).split()]


def test_random_loss_loses_its_share_each_on_its_own() -> None:
    lost = losses(RandomLoss(0.02, Random(1)))
    assert sum(lost) / PACKETS == pytest.approx(0.02, abs=0.0025)
    assert sum(bursts(lost)) / len(bursts(lost)) == pytest.approx(1.02, abs=0.02)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_random_loss_of_nothing_and_of_all(ratio: float) -> None:
    assert set(losses(RandomLoss(ratio, Random(1)), 1000)) == {ratio == 1}


def test_bursts_have_the_mean_loss_and_length_of_the_chain() -> None:
    model = GilbertElliott(0.01, 0.25)
    lost = losses(BurstyLoss(model, Random(1)))
    assert sum(lost) / PACKETS == pytest.approx(model.mean_loss, rel=0.1)
    assert sum(bursts(lost)) / len(bursts(lost)) == pytest.approx(4, rel=0.1)


def test_each_state_has_its_own_loss() -> None:
    model = GilbertElliott(0.01, 0.2, 0.5, 0.001)
    assert sum(losses(BurstyLoss(model, Random(1)))) / PACKETS == pytest.approx(model.mean_loss, rel=0.15)


def test_the_loss_is_that_of_the_state_before_the_step() -> None:
    """netem draws the transition first, but judges the packet by the state it arrived in: the first one passes."""
    assert losses(BurstyLoss(GilbertElliott(1, 0), Random(1)), 4) == [False, True, True, True]


def test_delay_is_exact_without_jitter() -> None:
    delay = Delay(20 * MS, 0, Random(1))
    assert [delay.leaves_ns(at, 100) for at in (0, 5, 7 * MS)] == [20 * MS, 20 * MS + 5, 27 * MS]


def test_jitter_is_uniform_for_packets_far_apart() -> None:
    delay = Delay(20 * MS, 4 * MS, Random(1))
    taken = sorted((delay.leaves_ns(at, 100) or 0) - at for at in range(0, PACKETS * 8 * MS, 8 * MS))
    assert taken[0] >= 16 * MS
    assert taken[-1] < 24 * MS
    quartiles = [taken[PACKETS * quarter // 4] / MS for quarter in (1, 2, 3)]
    assert quartiles == [pytest.approx(18, abs=0.1), pytest.approx(20, abs=0.1), pytest.approx(22, abs=0.1)]


def test_jitter_never_lets_a_packet_overtake() -> None:
    delay = Delay(20 * MS, 20 * MS, Random(1))
    left = [delay.leaves_ns(at, 100) or 0 for at in range(0, 1000 * MS, MS)]
    assert left == sorted(left)


def test_rate_sends_one_packet_after_the_other() -> None:
    """1 Mbit/s: 986 bytes and 14 of Ethernet take 8 ms."""
    rate = Rate(1e6, 10)
    assert [rate.leaves_ns(0, 986), rate.leaves_ns(0, 986), rate.leaves_ns(100 * MS, 986)] == [
        8 * MS,
        16 * MS,
        108 * MS,
    ]


def test_a_full_queue_drops_its_tail_until_a_packet_has_left() -> None:
    rate = Rate(1e6, 2)
    assert [rate.leaves_ns(0, 986) for _ in range(3)] == [8 * MS, 16 * MS, None]
    assert rate.leaves_ns(8 * MS - 1, 986) is None
    assert rate.leaves_ns(8 * MS, 986) == 24 * MS
    assert rate.dropped == 2


BUSY = Direction(delay_s=0.02, jitter_s=0.004, loss=0.1, rate_bps=5e6, queue_packets=20)


def fates(seed: str, direction: Direction = BUSY) -> list[int | None]:
    pipeline = build_pipeline(direction, seed)
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
    pipeline = build_pipeline(Direction(loss=GilbertElliott(1, 0), rate_bps=1e6, queue_packets=5), "1")
    assert [pipeline.leaves_ns(0, 986) for _ in range(3)] == [8 * MS, None, None]
    assert pipeline.dropped_packets == 2


def test_delay_comes_before_rate() -> None:
    """Packets queue at the far end, when they have arrived there: as in netem."""
    pipeline = build_pipeline(Direction(delay_s=0.02, rate_bps=1e6, queue_packets=1), "1")
    assert [pipeline.leaves_ns(at, 986) for at in (0, MS, 8 * MS)] == [28 * MS, None, 36 * MS]


def test_nothing_asked_for_is_nothing_done() -> None:
    pipeline = build_pipeline(Direction(), "1")
    assert pipeline.effects == ()
    assert pipeline.leaves_ns(5, 100) == 5
