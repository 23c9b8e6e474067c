"""The way of one message, from packets made up for the purpose: what was lost, sent again, and when it arrived."""

import json

from loadtests.journey.journey import Crossing, journey, nickname
from loadtests.journey.packets import Flow, Segment

ANA = Flow("10.77.1.1", 4000, "10.77.1.2", 5000)
BEN = Flow("10.77.1.1", 4001, "10.77.1.2", 5000)


class Wire:
    """Two captures, written packet by packet."""

    def __init__(self) -> None:
        self.client: list[Segment] = []
        self.server: list[Segment] = []
        self._next: dict[Flow, int] = {}
        self._number = 0

    def open(self, at_s: float, flow: Flow, sequence: int) -> None:
        for way, later_s in ((flow, 0.0), (flow.back, 0.001)):
            syn = Segment(at_s + later_s, way, 0, sequence, True, b"")
            self.client.append(syn)
            self.server.append(syn)
            self._next[way] = sequence + 1

    def send(self, at_s: float, flow: Flow, payload: bytes, arrived_s: float | None, *, again: bool = False) -> None:
        """`again`: these are the last bytes that the flow carried."""
        self._number += 1
        if again:
            self._next[flow] -= len(payload)
        segment = Segment(at_s, flow, self._number, self._next[flow] % 2**32, False, payload)
        self._next[flow] += len(payload)
        here, there = (self.client, self.server) if flow.target_port == 5000 else (self.server, self.client)
        here.append(segment)
        if arrived_s is not None:
            there.append(segment._replace(at_s=arrived_s))


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def two_users() -> Wire:
    wire = Wire()
    # The numbers of the first bytes are close to where they begin again.
    wire.open(0.0, ANA, 2**32 - 20)
    wire.open(0.0, BEN, 7)
    for flow, nick in ((ANA, "x-0"), (BEN, "x-1")):
        wire.send(0.01, flow.back, line(type="welcome", nick=nick, token=nick), 0.02)
    return wire


def test_a_message_that_was_lost_once_in_each_direction() -> None:
    """Who sends again is seen, and a packet that did not arrive has no time of arrival."""
    wire = two_users()
    said = line(type="say", id=3, text="hi")
    wire.send(1.0, ANA, said, None)
    wire.send(1.2, ANA, said, 1.22, again=True)
    echo = line(type="said", id=3, **{"from": "x-0"}, text="hi")
    wire.send(1.23, ANA.back, echo, 1.25)
    wire.send(1.23, BEN.back, echo, None)
    wire.send(1.44, BEN.back, echo, 1.46, again=True)
    assert journey(sorted(wire.client), sorted(wire.server), "x-0", 3) == [
        Crossing("up", "x-0", "10.77.1.2", 1.0, None, False),
        Crossing("up", "x-0", "10.77.1.2", 1.2, 1.22, True),
        Crossing("down", "x-0", "10.77.1.2", 1.23, 1.25, False),
        Crossing("down", "x-1", "10.77.1.2", 1.23, None, False),
        Crossing("down", "x-1", "10.77.1.2", 1.44, 1.46, True),
    ]


def test_other_messages_are_others() -> None:
    """The same number of another sender is another message, and a private one is found like a public one."""
    wire = two_users()
    wire.send(1.0, ANA, line(type="say", id=1, text="a"), 1.1)
    wire.send(1.0, BEN, line(type="tell", id=1, to="x-0", text="b"), 1.1)
    wire.send(1.2, ANA.back, line(type="told", id=1, **{"from": "x-1"}, text="b"), 1.3)
    found = journey(sorted(wire.client), sorted(wire.server), "x-1", 1)
    assert [(one.way, one.nick, one.left_s) for one in found] == [("up", "x-1", 1.0), ("down", "x-0", 1.2)]


def test_two_messages_in_one_packet() -> None:
    """A packet belongs to each message that ends in it."""
    wire = two_users()
    wire.send(1.0, ANA, line(type="say", id=1, text="a") + line(type="say", id=2, text="b"), 1.1)
    ways = [journey(sorted(wire.client), sorted(wire.server), "x-0", number) for number in (1, 2)]
    assert ways[0] == ways[1] == [Crossing("up", "x-0", "10.77.1.2", 1.0, 1.1, False)]


def test_users_are_found_by_their_number() -> None:
    wire = two_users()
    assert nickname(sorted(wire.client), sorted(wire.server), 1) == "x-1"
    assert nickname(sorted(wire.client), sorted(wire.server), 7) is None
