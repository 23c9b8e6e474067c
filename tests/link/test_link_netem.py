"""The argument lists of `tc` and `ip`, and the comparison of what the kernel reads back, without a kernel."""

from typing import Any

import pytest

from loadtests.link.backends.netem import end_commands, router_commands
from loadtests.link.backends.qdisc import Netem, beyond_netem, netem_tree
from loadtests.link.model.profile import Direction, GilbertElliott, LinkProfile, TimedBursts, Trace

REST = "reorder 0% duplicate 0% corrupt 0% rate 10000000000bit"
ROOT = "qdisc replace dev s-primary root handle 1: netem limit 1000000"


def commands(direction: Direction) -> list[str]:
    return [qdisc.command("s-primary") for qdisc in netem_tree(direction)]


@pytest.mark.parametrize(
    ("direction", "arguments"),
    [
        (
            Direction(delay_s=0.02, jitter_s=0.004, distribution="pareto", keep_order=False, duplicate=0.01),
            "delay 20000.000us 4000.000us distribution pareto loss random 0%"
            " reorder 0% duplicate 1% corrupt 0% rate 0bit",
        ),
        (
            Direction(delay_s=0.02, reorder=0.1, corrupt=0.002),
            "delay 20000.000us 0.000us loss random 0% reorder 10% duplicate 0% corrupt 0.2% rate 10000000000bit",
        ),
        (Direction(), f"delay 0.000us 0.000us loss random 0% {REST}"),
        (
            Direction(delay_s=0.02),
            f"delay 20000.000us 0.000us loss random 0% {REST}",
        ),
        (
            Direction(delay_s=0.02, jitter_s=0.0045),
            f"delay 20000.000us 4500.000us loss random 0% {REST}",
        ),
        (
            Direction(loss=0.02),
            f"delay 0.000us 0.000us loss random 2% {REST}",
        ),
        (
            Direction(loss=GilbertElliott(0.01, 0.25, 0.5, 0.001)),
            f"delay 0.000us 0.000us loss gemodel 1% 25% 50% 0.1% {REST}",
        ),
    ],
)
def test_every_parameter_is_said(direction: Direction, arguments: str) -> None:
    """The rate is there even without a limit: with it netem keeps packets in order."""
    assert commands(direction) == [f"{ROOT} {arguments}"]


def test_rate_is_a_qdisc_below_with_the_queue_as_its_limit() -> None:
    direction = Direction(delay_s=0.3, rate_bps=5e6, queue_packets=42)
    assert commands(direction)[1:] == [
        "qdisc replace dev s-primary parent 1:1 handle 2: netem limit 42"
        " delay 0.000us 0.000us loss random 0% reorder 0% duplicate 0% corrupt 0% rate 5000000bit"
    ]


#: As iproute2 6.1 prints them with -json.
DELAY_AND_LOSS = {
    "limit": 1000000,
    "delay": {"delay": 0.02, "jitter": 0.004, "correlation": 0},
    "loss-random": {"loss": 0.02, "correlation": 0},
    "rate": {"rate": 1250000000, "packetoverhead": 0, "cellsize": 0, "celloverhead": 0},
    "ecn": False,
    "gap": 0,
}
BURSTS = {
    "limit": 1000000,
    "loss-gemodel": {"p": 0.01, "r": 0.25, "1-h": 1, "1-k": 0},
    "rate": {"rate": 1250000000, "packetoverhead": 0, "cellsize": 0, "celloverhead": 0},
}
QUEUE = {"limit": 42, "rate": {"rate": 625000, "packetoverhead": 0, "cellsize": 0, "celloverhead": 0}}


@pytest.mark.parametrize(
    ("direction", "read_back"),
    [
        (Direction(delay_s=0.02, jitter_s=0.004, loss=0.02), [DELAY_AND_LOSS]),
        (Direction(loss=GilbertElliott(0.01, 0.25)), [BURSTS]),
        (
            Direction(delay_s=0.02, jitter_s=0.004, loss=0.02, rate_bps=5e6, queue_packets=42),
            [DELAY_AND_LOSS, QUEUE],
        ),
    ],
)
def test_what_was_asked_for_reads_back(direction: Direction, read_back: list[dict[str, Any]]) -> None:
    differences = [qdisc.difference(one) for qdisc, one in zip(netem_tree(direction), read_back, strict=True)]
    assert set(differences) == {None}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"limit": 1000}, "limit is 1000, not 1e+06"),
        ({"delay": {"delay": 0.01, "jitter": 0.004}}, "delay is 0.01, not 0.02"),
        ({"delay": {"delay": 0.02, "jitter": 0}}, "jitter is 0, not 0.004"),
        ({"loss-random": {"loss": 0.2}}, "loss is 0.2, not 0.02"),
        ({"loss-gemodel": {"p": 0.01, "r": 0.25, "1-h": 1, "1-k": 0}}, "p is 0.01, not 0"),
        ({"duplicate": {"duplicate": 0.01}}, "duplicate is 0.01, not 0"),
        ({"rate": {"rate": 625000}}, "rate is 5e+06, not 1e+10"),
    ],
)
def test_each_difference_is_named(changed: dict[str, Any], problem: str) -> None:
    (wanted,) = netem_tree(Direction(delay_s=0.02, jitter_s=0.004, loss=0.02))
    assert wanted.difference(DELAY_AND_LOSS | changed) == problem


def test_times_may_be_rounded_down_to_microseconds() -> None:
    (wanted,) = netem_tree(Direction(delay_s=0.0005))
    read_back = BURSTS | {"delay": {"delay": 0.000499, "jitter": 0}, "loss-gemodel": {}}
    assert wanted.difference(read_back) is None


def test_a_missing_qdisc_is_named() -> None:
    assert Netem(handle="2:", parent="1:1", limit_packets=1, rate_bps=1e6).difference(None) == "qdisc 2: is missing"


def test_neighbours_are_fixed_and_segments_not_joined() -> None:
    assert end_commands("server", "secondary") == [
        "link add name secondary address 02:00:00:01:01:00 type veth"
        " peer name s-secondary address 02:00:00:01:01:01 netns router",
        "link set secondary mtu 1500 gso_max_segs 1 up",
        "address add 10.77.2.2/24 dev secondary",
        "neighbour add 10.77.2.1 lladdr 02:00:00:01:01:01 dev secondary nud permanent",
    ]
    assert router_commands("server", "secondary") == [
        "link set s-secondary mtu 1500 gso_max_segs 1 up",
        "route add 10.77.2.2/32 dev s-secondary",
        "neighbour add 10.77.2.2 lladdr 02:00:00:01:01:00 dev s-secondary nud permanent",
    ]


@pytest.mark.parametrize(
    ("direction", "sentence"),
    [
        (Direction(loss=TimedBursts(1, 0.1)), "counted in packets (p and r), not in time"),
        (Direction(trace=Trace("lte.trace", 1e6), queue_packets=10), "cannot follow a trace"),
        (Direction(delay_s=0.02, reorder=0.1, rate_bps=1e6, queue_packets=10), "skip the rate too"),
    ],
)
def test_what_only_the_emulator_can_do(direction: Direction, sentence: str) -> None:
    assert sentence in (beyond_netem(LinkProfile(name="test", up=direction)) or "")
    assert beyond_netem(LinkProfile(name="test", up=Direction(loss=GilbertElliott(0.01, 0.25)))) is None
