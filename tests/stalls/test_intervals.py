"""Times in which something was amiss: what meets them, and how much of them lies where."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtests.stalls.intervals import Interval, Intervals

TIMES = st.integers(0, 200)
INTERVALS = st.lists(st.tuples(TIMES, st.integers(0, 40)).map(lambda one: Interval(one[0], one[0] + one[1])))


@given(INTERVALS, st.lists(st.tuples(TIMES, st.integers(0, 60)), min_size=1))
def test_what_meets_is_what_a_search_through_all_finds(intervals: list[Interval], asked: list[tuple[int, int]]) -> None:
    from_ns = np.array([begin for begin, _ in asked])
    to_ns = from_ns + np.array([length for _, length in asked])
    met = Intervals(intervals).meet(from_ns, to_ns)
    for begin, end, meets in zip(from_ns, to_ns, met, strict=True):
        assert meets == any(one.begin_ns <= end and one.end_ns >= begin for one in intervals)


@given(INTERVALS, st.tuples(TIMES, st.integers(0, 60)))
def test_overlap_counts_each_moment_once(intervals: list[Interval], asked: tuple[int, int]) -> None:
    begin, end = asked[0], sum(asked)
    moments = {moment for one in intervals for moment in range(max(begin, one.begin_ns), min(end, one.end_ns))}
    assert Intervals(intervals).overlap_ns(np.array([begin]), np.array([end])).tolist() == [len(moments)]


def test_short_ones_are_left_out_each_by_itself() -> None:
    intervals = Intervals.longer_than([Interval(0, 5), Interval(5, 10), Interval(20, 30)], 5)
    assert intervals.meet(np.array([0, 20]), np.array([12, 20])).tolist() == [False, True]
