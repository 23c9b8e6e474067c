"""Which ids of a session were accepted already."""

import copy

import hypothesis.strategies as st
import pytest
from hypothesis import given

from chat.protocol.errors import Refusal
from chat.server.replay import ID_WINDOW, IdWindow


def test_id_window() -> None:
    window = IdWindow()
    assert window.accept(5)
    assert window.accept(3)
    assert not window.accept(5)
    assert not window.accept(3)
    assert window.accept(4 + ID_WINDOW)
    assert not window.accept(5)
    with pytest.raises(Refusal, match="4 is more than 4096 behind"):
        window.accept(4)
    assert window.accept(2**53 - 1)
    assert not window.accept(2**53 - 1)
    assert window.accept(2**53 - 2)


def test_id_window_leaves_ids_out_around_the_end_of_its_ring() -> None:
    window = IdWindow()
    for number in range(1, ID_WINDOW - 1):
        assert window.accept(number)
    assert not window.accept(7)
    assert window.accept(ID_WINDOW + 3)
    for number in range(ID_WINDOW - 1, ID_WINDOW + 3):
        assert window.accept(number)
        assert not window.accept(number)
    assert not window.accept(ID_WINDOW - 2)


@given(st.lists(st.integers(1, 12) | st.integers(ID_WINDOW - 3, ID_WINDOW + 12), max_size=12), st.integers(1, 9))
def test_what_it_knows_and_takes_in_a_row_is_what_it_would_accept_one_by_one(numbers: list[int], count: int) -> None:
    window = IdWindow()
    for number in numbers:
        if number > window.highest - ID_WINDOW:
            window.accept(number)
    for number in {number for number in numbers if number > window.highest - ID_WINDOW} | {window.highest + 1}:
        assert window.knows(number) == (not copy.deepcopy(window).accept(number))
    assert not window.knows(window.highest - ID_WINDOW), "too old to tell"
    assert not window.knows(None)
    other = copy.deepcopy(window)
    window.accept_next(count)
    for _ in range(count):
        assert other.accept(other.highest + 1)
    assert (window.highest, window._seen) == (other.highest, other._seen)
