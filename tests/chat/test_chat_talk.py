"""What is said in a row is taken together, and nobody can tell."""

from typing import Any

import hypothesis.strategies as st
from hub_helpers import Hall, hand_in
from hypothesis import given

from chat.protocol.limits import Limits
from chat.protocol.messages import Join, Nick, Ping, Say, Tell, Up

LIMITS = Limits(text_bytes=8)
ids = st.none() | st.integers(1, 12)
says = st.builds(
    Say,
    st.sampled_from(["x", "two", "naïve", "é" * 4, "é" * 5, "12345678", "123456789", ""]),
    ids,
    st.sampled_from(["lobby", "Lobby", "tea", "TEA", "nowhere", "others"]),
)
others = st.sampled_from([Ping(1), Tell("ben", "x", 3), Nick("cem", 5), Join("tin", 7)])


def what_comes_of(messages: list[Up], most: int | None) -> tuple[Any, ...]:
    """Of what ana sends after a few messages of her own in order; None: one by one."""
    hall = Hall(limits=LIMITS)
    ana, ben = hall.join("ana"), hall.join("ben")
    hall.hub.receive(ana, Join("tea", 1))
    hall.hub.receive(ben, Join("tea", 1))
    hall.hub.receive(ben, Join("others", 2))
    in_order: list[Up] = [Say("x", 2), Say("y", 3), Say("z", 4, "tea")]
    if most is None:
        for message in in_order + messages:
            hall.hub.receive(ana, message)
    else:
        hand_in(hall.hub, ana, in_order + messages, most)
    return hall.take(ana), hall.take(ben), hall.hub.duplicates, hall.hub.refusals, hall.hub.delivery.lines


@given(st.lists(says | others, max_size=12), st.integers(1, 13))
def test_taken_together_or_one_by_one_is_the_same(messages: list[Up], most: int) -> None:
    assert what_comes_of(messages, most) == what_comes_of(messages, None)


def test_how_many_are_taken() -> None:
    hall = Hall(limits=LIMITS)
    ana = hall.join("ana")
    row = [*(Say("x", number) for number in range(1, 6)), Ping()]
    assert hall.hub.talk(ana, row, 3) == 3
    assert hall.hub.talk(ana, row[3:], 9) == 2
    assert hall.hub.talk(ana, row, 9) == hall.hub.duplicates == 5
    assert hall.hub.talk(hall.connect(), [Say("x", 1)], 9) == 0, "a stranger"
    assert [line["seq"] for line in hall.take(ana)] == [2, 3, 4, 5, 6]


def test_nothing_is_taken_while_the_disk_is_full() -> None:
    class Full:
        def has_room(self) -> bool:
            return self.room

        room = True
        keep = keep_topic = forget = keep_names = free_names = lambda *_: None

    keeper = Full()
    hall = Hall(keeper=keeper)
    ana = hall.join("ana")
    keeper.room = False
    assert hall.hub.talk(ana, [Say("x", 1)], 9) == 0
    keeper.room = True
    assert hall.hub.talk(ana, [Say("x", 1)], 9) == 1
