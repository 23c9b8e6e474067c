"""Which messages the machine disturbed: decided by the schedule, the links and the stalls, and by nothing else."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.link.linkfile import load_profile
from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.run.disturbed import LEAST_NS, RTT_SHARE, Disturbances
from loadtests.stalls.intervals import MARGIN_NS, Interval

MS = 1_000_000
FAR = LinkProfile(name="far", up=Direction(delay_s=0.060), down=Direction(delay_s=0.040))
LENGTHS = st.integers(1, 80).map(lambda length_ms: length_ms * MS)
STALLS = st.lists(st.tuples(st.integers(0, 1000), LENGTHS).map(lambda one: Interval(one[0] * MS, one[0] * MS + one[1])))
INTENDED = st.lists(st.integers(0, 1000 * MS), min_size=1).map(lambda times: np.array(times, np.int64))


def disturbances(stalls: list[Interval], late: list[Interval] | None = None, **links: LinkProfile) -> Disturbances:
    return Disturbances(links or {"primary": FAR}, stalls, late or [], is_emulated=True)


def test_the_response_time_is_not_even_asked_for() -> None:
    assert list(inspect.signature(Disturbances.messages).parameters) == ["self", "intended_ns"]
    assert list(inspect.signature(Disturbances.files).parameters) == ["self", "begun_ns", "size_bytes"]


@pytest.mark.parametrize(
    ("begin_ms", "hit"),
    [
        (-30, False),  # over before the message was due
        (-5, True),  # when it is sent
        (20, False),  # on its way: nobody needs to run for it
        (55, True),  # when the server has it
        (75, False),
        (95, False),  # the kernel notes the echo's time, whatever our processes do
    ],
)
def test_a_stall_counts_when_somebody_had_to_run(begin_ms: int, hit: bool) -> None:
    stall = Interval(begin_ms * MS, (begin_ms + 10) * MS)
    assert disturbances([stall]).messages(np.array([0])).tolist() == [hit]


@pytest.mark.parametrize(("begin_ms", "hit"), [(20, False), (55, True), (75, False), (95, True)])
def test_the_emulator_counts_when_a_packet_was_due(begin_ms: int, hit: bool) -> None:
    late = Interval(begin_ms * MS, (begin_ms + 10) * MS)
    assert disturbances([], [late]).messages(np.array([0])).tolist() == [hit]


def test_where_the_kernel_carries_packets_a_stall_holds_up_the_echo() -> None:
    found = Disturbances({"primary": FAR}, [Interval(95 * MS, 105 * MS)], (), is_emulated=False)
    assert found.messages(np.array([0])).tolist() == [True]


def test_a_stall_that_is_short_for_its_path_does_not_count() -> None:
    least_ns = round(LEAST_NS + RTT_SHARE * 100 * MS)
    short, long = Interval(0, least_ns), Interval(0, least_ns + 1)
    assert disturbances([short]).messages(np.array([0])).tolist() == [False]
    assert disturbances([long]).messages(np.array([0])).tolist() == [True]


@given(STALLS, INTENDED)
def test_marks_are_what_a_search_through_all_finds(stalls: list[Interval], intended_ns: np.ndarray) -> None:
    marked = disturbances(stalls).messages(intended_ns)
    felt = [one for one in stalls if one.end_ns - one.begin_ns > LEAST_NS + RTT_SHARE * 100 * MS]
    for time_ns, mark in zip(intended_ns, marked, strict=True):
        moments_ns = [int(time_ns), int(time_ns) + 60 * MS]
        assert mark == any(
            one.begin_ns <= moment_ns + MARGIN_NS and one.end_ns >= moment_ns - MARGIN_NS
            for one in felt
            for moment_ns in moments_ns
        )


@given(STALLS, STALLS, INTENDED)
def test_another_stall_takes_no_mark_away(
    stalls: list[Interval], more: list[Interval], intended_ns: np.ndarray
) -> None:
    few, many = (disturbances(found).messages(intended_ns) for found in (stalls, stalls + more))
    assert (many >= few).all()


@given(STALLS, INTENDED, st.integers(-(10**12), 10**12))
def test_only_distances_of_time_count(stalls: list[Interval], intended_ns: np.ndarray, shift_ns: int) -> None:
    moved = [Interval(one.begin_ns + shift_ns, one.end_ns + shift_ns) for one in stalls]
    assert (
        disturbances(stalls).messages(intended_ns).tolist()
        == disturbances(moved).messages(intended_ns + shift_ns).tolist()
    )


@given(STALLS, INTENDED)
def test_a_second_path_adds_its_own_moments(stalls: list[Interval], intended_ns: np.ndarray) -> None:
    alone = disturbances(stalls).messages(intended_ns)
    slower = LinkProfile(name="slower", up=Direction(delay_s=0.300), down=Direction(delay_s=0.300))
    both = disturbances(stalls, primary=FAR, secondary=slower).messages(intended_ns)
    assert (both >= alone).all()


def test_jitter_widens_the_moments() -> None:
    shaky = LinkProfile(name="shaky", up=Direction(delay_s=0.060, jitter_s=0.020), down=Direction(delay_s=0.040))
    stall = Interval(70 * MS, 80 * MS)
    assert disturbances([stall]).messages(np.array([0])).tolist() == [False]
    assert disturbances([stall], primary=shaky).messages(np.array([0])).tolist() == [True]


def test_a_file_is_disturbed_by_a_share_of_its_time() -> None:
    link = load_profile("lossy-wifi")
    megabyte = np.array([1_000_000])
    one = [Interval(100 * MS, 110 * MS)]
    many = [Interval(begin_ms * MS, (begin_ms + 10) * MS) for begin_ms in range(0, 2000, 50)]
    assert disturbances(one, primary=link).files(np.array([0]), megabyte).tolist() == [False]
    assert disturbances(many, primary=link).files(np.array([0]), megabyte).tolist() == [True]
    assert disturbances(many, primary=link).files(np.array([10_000 * MS]), megabyte).tolist() == [False]


def test_without_links_only_the_sending_counts() -> None:
    found = Disturbances({}, [Interval(0, 10 * MS)], (), is_emulated=False)
    assert found.messages(np.array([-20 * MS, 5 * MS, 20 * MS])).tolist() == [False, True, False]
