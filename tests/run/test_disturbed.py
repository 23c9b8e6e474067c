"""Which messages the machine disturbed: decided by the schedule, the links and the stalls, and by nothing else."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.link.backends.backend import CARRIED
from loadtests.link.linkfile import load_profile
from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.run.disturbed import LEAST_NS, PACKET, RTT_SHARE, SOON_NS, Carried, Disturbances
from loadtests.stalls.intervals import Flags, Interval

MS = 1_000_000
FAR = LinkProfile(name="far", up=Direction(delay_s=0.060), down=Direction(delay_s=0.040))
LENGTHS = st.integers(1, 80).map(lambda length_ms: length_ms * MS)
STALLS = st.lists(st.tuples(st.integers(0, 1000), LENGTHS).map(lambda one: Interval(one[0] * MS, one[0] * MS + one[1])))
INTENDED = st.lists(st.integers(0, 1000 * MS), min_size=1).map(lambda times: np.array(times, np.int64))


def disturbances(stalls: list[Interval], late: list[Interval] | None = None, **links: LinkProfile) -> Disturbances:
    return Disturbances(links or {"primary": FAR}, stalls, late or [])


def marks(found: Disturbances, intended_ns: np.ndarray) -> Flags:
    """Of messages that were sent when they were due, where nobody noted when they were carried."""
    return found.messages(intended_ns, intended_ns)


def carried(*packets: tuple[int, int, int]) -> Carried:
    """Path, and milliseconds at which it was taken and left, of each packet, as the emulator writes them."""
    written = b"".join(CARRIED.pack(number, taken * MS, left * MS) for number, taken, left in packets)
    return Carried(np.frombuffer(written, PACKET))


def test_the_response_time_is_not_even_asked_for() -> None:
    assert list(inspect.signature(Disturbances.messages).parameters) == ["self", "intended_ns", "sent_ns"]
    assert list(inspect.signature(Disturbances.files).parameters) == ["self", "begun_ns", "size_bytes"]


@pytest.mark.parametrize(
    ("begin_ms", "hit"),
    [
        (-30, False),  # over before the message was due
        (-5, True),  # when it is sent
        (20, False),  # on its way: nobody needs to run for it
        (55, True),  # when the server has it
        (75, False),
        (95, True),  # when the kernel carries the echo
    ],
)
def test_a_stall_counts_when_somebody_had_to_run(begin_ms: int, hit: bool) -> None:
    stall = Interval(begin_ms * MS, (begin_ms + 10) * MS)
    assert marks(disturbances([stall]), np.array([0])).tolist() == [hit]


def test_a_message_that_waited_for_its_sender_has_the_moment_of_its_sending_too() -> None:
    stall = disturbances([Interval(10 * MS, 20 * MS)])
    assert stall.messages(np.array([0, 0]), np.array([5 * MS, 12 * MS])).tolist() == [False, True]


@pytest.mark.parametrize(("begin_ms", "hit"), [(45, False), (60, True), (75, False), (95, False)])
def test_the_server_counts_when_the_emulator_took_its_answer(begin_ms: int, hit: bool) -> None:
    packets = carried((0, 10, 50), (0, 65, 110), (1, 80, 110), (0, 80, 120))
    found = Disturbances({"primary": FAR}, [Interval(begin_ms * MS, (begin_ms + 10) * MS)], (), packets)
    assert found.messages(np.array([0]), np.array([0])).tolist() == [False]
    assert found.arrivals(np.array([0]), np.array([110 * MS - 20_000])).tolist() == [hit]


def test_the_emulator_counts_when_a_message_was_sent() -> None:
    found = Disturbances({"primary": FAR}, (), [Interval(10 * MS, 20 * MS)], carried())
    assert found.messages(np.array([0, 0, 0]), np.array([0, 12 * MS, 30 * MS])).tolist() == [False, True, False]


@pytest.mark.parametrize(("begin_ms", "hit"), [(20, False), (55, True), (80, False), (100, True), (115, False)])
def test_the_emulator_counts_when_a_packet_left(begin_ms: int, hit: bool) -> None:
    packets = carried((0, 65, 110))
    found = Disturbances({"primary": FAR}, (), [Interval(begin_ms * MS, (begin_ms + 10) * MS)], packets)
    assert found.arrivals(np.array([0]), np.array([110 * MS - 20_000])).tolist() == [hit]


def test_what_got_no_answer_has_the_moments_that_it_should_have_had() -> None:
    packets = carried()
    found = Disturbances({"primary": FAR}, [Interval(50 * MS, 70 * MS)], (), packets)
    assert found.unanswered(np.array([0, 40 * MS])).tolist() == [True, False]


def test_a_slow_answer_is_no_more_disturbed_than_a_fast_one() -> None:
    """All that counts is at its moments: the stalls that it met meanwhile have no say."""
    packets = carried((0, 65, 110), (0, 965, 1010))
    meanwhile = [Interval(begin_ms * MS, (begin_ms + 30) * MS) for begin_ms in range(115, 900, 60)]
    found = Disturbances({"primary": FAR}, meanwhile, (), packets)
    assert found.messages(np.array([0]), np.array([0])).tolist() == [False]
    assert found.arrivals(np.array([0, 0]), np.array([110 * MS, 1010 * MS])).tolist() == [False, False]


def test_a_stall_that_is_short_for_its_path_does_not_count() -> None:
    least_ns = round(LEAST_NS + RTT_SHARE * 100 * MS)
    short, long = Interval(0, least_ns), Interval(0, least_ns + 1)
    assert marks(disturbances([short]), np.array([0])).tolist() == [False]
    assert marks(disturbances([long]), np.array([0])).tolist() == [True]


@given(STALLS, INTENDED)
def test_marks_are_what_a_search_through_all_finds(stalls: list[Interval], intended_ns: np.ndarray) -> None:
    marked = marks(disturbances(stalls), intended_ns)
    felt = [one for one in stalls if one.end_ns - one.begin_ns > LEAST_NS + RTT_SHARE * 100 * MS]
    for time_ns, mark in zip(intended_ns, marked, strict=True):
        moments_ns = [int(time_ns), int(time_ns) + 60 * MS, int(time_ns) + 100 * MS]
        assert mark == any(
            one.begin_ns <= moment_ns + SOON_NS and one.end_ns >= moment_ns - LEAST_NS - RTT_SHARE * 100 * MS
            for one in felt
            for moment_ns in moments_ns
        )


@given(STALLS, STALLS, INTENDED)
def test_another_stall_takes_no_mark_away(
    stalls: list[Interval], more: list[Interval], intended_ns: np.ndarray
) -> None:
    few, many = (marks(disturbances(found), intended_ns) for found in (stalls, stalls + more))
    assert (many >= few).all()


@given(STALLS, INTENDED, st.integers(-(10**12), 10**12))
def test_only_distances_of_time_count(stalls: list[Interval], intended_ns: np.ndarray, shift_ns: int) -> None:
    moved = [Interval(one.begin_ns + shift_ns, one.end_ns + shift_ns) for one in stalls]
    assert (
        marks(disturbances(stalls), intended_ns).tolist() == marks(disturbances(moved), intended_ns + shift_ns).tolist()
    )


@given(STALLS, INTENDED)
def test_a_second_path_adds_its_own_moments(stalls: list[Interval], intended_ns: np.ndarray) -> None:
    alone = marks(disturbances(stalls), intended_ns)
    slower = LinkProfile(name="slower", up=Direction(delay_s=0.300), down=Direction(delay_s=0.300))
    both = marks(disturbances(stalls, primary=FAR, secondary=slower), intended_ns)
    assert (both >= alone).all()


def test_jitter_widens_the_moments() -> None:
    shaky = LinkProfile(name="shaky", up=Direction(delay_s=0.060, jitter_s=0.020), down=Direction(delay_s=0.040))
    stall = Interval(70 * MS, 80 * MS)
    assert marks(disturbances([stall]), np.array([0])).tolist() == [False]
    assert marks(disturbances([stall], primary=shaky), np.array([0])).tolist() == [True]


def test_a_file_is_disturbed_by_a_share_of_its_time() -> None:
    link = load_profile("lossy-wifi")
    megabyte = np.array([1_000_000])
    one = [Interval(100 * MS, 110 * MS)]
    many = [Interval(begin_ms * MS, (begin_ms + 10) * MS) for begin_ms in range(0, 2000, 50)]
    assert disturbances(one, primary=link).files(np.array([0]), megabyte).tolist() == [False]
    assert disturbances(many, primary=link).files(np.array([0]), megabyte).tolist() == [True]
    assert disturbances(many, primary=link).files(np.array([10_000 * MS]), megabyte).tolist() == [False]


def test_without_links_only_the_sending_counts() -> None:
    found = Disturbances({}, [Interval(0, 10 * MS)], ())
    assert marks(found, np.array([-20 * MS, 5 * MS, 20 * MS])).tolist() == [False, True, False]
