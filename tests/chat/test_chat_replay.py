"""Which ids of a session were accepted already."""

import pytest

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
