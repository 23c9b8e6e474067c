"""From packets to the time at which each line could be read: against a receiver that takes one byte after the other."""

import itertools
import random
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.run.wire.arrivals import NEVER, PACKET, Arrivals, Packets, key_of, latest
from loadtests.run.wire.join import stamped
from loadtests.samples import DELIVERED, ECHOED

SERVER = 0x0A4D0102
SERVERS = {"10.77.1.2": "primary"}


class Sent(NamedTuple):
    """A packet as the tests speak of it: payload bytes `begin` to `end` of a stream; a SYN without `end`."""

    at_ns: int
    begin: int = 0
    end: int = 0
    port: int = 40_000
    first: int = 1_000


def captured(sent: list[Sent]) -> Packets:
    packets = [
        (one.at_ns, (one.first + 1 + one.begin) % 2**32, SERVER, one.end - one.begin, one.port, False)
        if one.end
        else (one.at_ns, one.first, SERVER, 0, one.port, True)
        for one in sent
    ]
    return np.array(packets, PACKET)


def ints(*values: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(values, np.int64)


def readable(
    sent: list[Sent], ends: list[int], read_by_ns: int | list[int] = 10**9, *, doubtful: bool = False
) -> list[int | None]:
    """When lines of the only stream that end after so many bytes could be read; None where that is not known."""
    arrivals = Arrivals(captured(sent), repeats_are_doubtful=doubtful)
    found = arrivals.readable_ns(np.zeros(len(ends), np.int64), ints(*ends), np.zeros(len(ends), np.int64) + read_by_ns)
    return [None if time == NEVER else int(time) for time in found]


def test_each_line_of_a_packet_or_of_several_has_the_time_of_its_last_byte() -> None:
    sent = [Sent(1), Sent(10, 0, 30), Sent(20, 30, 40), Sent(30, 40, 55)]
    assert readable(sent, [1, 20, 30, 31, 40, 41, 55]) == [10, 10, 10, 20, 20, 30, 30]
    assert readable(sent, [0, 56]) == [None, None], "nothing is known of what was not captured"


def test_a_byte_waits_for_those_before_it() -> None:
    lost_once = [Sent(1), Sent(10, 0, 30), Sent(20, 40, 55), Sent(90, 30, 40)]
    assert readable(lost_once, [30, 40, 41, 55]) == [10, 90, 90, 90]


def test_of_copies_the_first_counts_even_if_cut_otherwise() -> None:
    sent = [Sent(1), Sent(10, 0, 30), Sent(20, 0, 30), Sent(25, 20, 50), Sent(30, 30, 50), Sent(31, 0, 60)]
    assert readable(sent, [5, 30, 31, 50, 60]) == [10, 10, 25, 25, 31]


def test_a_repeated_answer_to_a_syn_begins_no_other_stream() -> None:
    assert readable([Sent(1), Sent(5), Sent(10, 0, 30)], [30]) == [10]


def test_sequence_numbers_wrap_around() -> None:
    step = 2**30
    edges = list(range(0, 6 * step, step))
    sent = [Sent(begin // step + 10, begin, end, first=2**32 - 5) for begin, end in itertools.pairwise(edges)]
    assert readable([Sent(1, first=2**32 - 5), *sent], edges[1:]) == [10, 11, 12, 13, 14]


def test_behind_a_packet_that_was_not_captured_a_later_arrival_is_known() -> None:
    sent = [Sent(1), Sent(10, 0, 30), Sent(30, 40, 50), Sent(50, 50, 60)]
    arrivals = Arrivals(captured(sent))
    ends, read_ns = ints(30, 40, 50, 60), ints(11, 41, 41, 51)
    found = arrivals.readable_ns(np.zeros(4, np.int64), ends, read_ns)
    # What was not seen came by 41: what came at 30 may have waited for it, what came at 50 has not.
    assert found.tolist() == [10, NEVER, NEVER, 50]


def test_what_came_twice_over_a_link_that_corrupts_is_not_known() -> None:
    sent = [Sent(1), Sent(10, 0, 30), Sent(20, 30, 40), Sent(60, 30, 40), Sent(61, 40, 50)]
    assert readable(sent, [30, 40, 50], doubtful=True) == [10, None, None]
    assert readable(sent, [30, 40, 50], [60, 60, 62], doubtful=True) == [10, None, 61]


def test_streams_are_known_by_address_port_and_time() -> None:
    again = [Sent(100, first=77), Sent(110, 0, 10, first=77)]
    other = [Sent(2, port=40_001, first=5), Sent(12, 0, 10, port=40_001, first=5)]
    packets = captured([Sent(0, 0, 20, port=39_999), Sent(1), other[0], Sent(10, 0, 30), other[1], *again])
    arrivals = Arrivals(packets)
    port = ints(40_000, 40_000, 40_001, 40_000, 39_999)
    stream = arrivals.stream(key_of(np.full(5, SERVER), port), ints(50, 105, 50, 0, 50))
    assert (stream >= 0).tolist() == [True, True, True, False, False]
    assert arrivals.began_ns(stream[:3]).tolist() == [1, 100, 2]
    found = arrivals.readable_ns(stream, np.full(5, 5), np.full(5, 200))
    assert found.tolist() == [10, 110, 12, NEVER, NEVER]
    assert (arrivals.stream(key_of(np.full(1, SERVER + 1), ints(40_000)), ints(50)) == -1).all(), "another address"


def test_a_capture_of_nothing_knows_nothing() -> None:
    arrivals = Arrivals(np.empty(0, PACKET))
    assert arrivals.stream(ints(1, 2), ints(3, 4)).tolist() == [-1, -1]
    assert arrivals.readable_ns(ints(-1, -1), ints(3, 4), ints(3, 4)).tolist() == [NEVER, NEVER]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20))),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 21))),
)
def test_latest_of_a_group(entries: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    group, at_ns = ints(*(entry[0] for entry in entries)), ints(*(entry[1] for entry in entries))
    found = latest(group, at_ns, ints(*(one[0] for one in asked)), ints(*(one[1] for one in asked)))
    for place, (name, by_ns) in zip(found, asked, strict=True):
        times = [time for other, time in entries if other == name and time <= by_ns]
        assert (entries[place] == (name, max(times))) if times else place == -1


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 60), captured_share=st.sampled_from([1.0, 0.8]))
def test_as_a_receiver_of_single_bytes(seed: int, size: int, captured_share: float) -> None:
    """Random cuts, losses, copies and overtaking on two connections; some packets are not captured.

    What is known is what such a receiver saw; and all is known where everything was captured, however late it was read.
    """
    rng = random.Random(seed)
    first = {40_000: rng.randrange(2**32), 40_001: rng.randrange(2**32)}
    sent, came = [Sent(port - 39_999, port=port, first=first[port]) for port in first], []
    for port in first:
        covered: set[int] = set()
        while len(covered) < size:
            begin = rng.randrange(size)
            end = rng.randint(begin + 1, size)
            covered |= {*range(begin, end)}
            came.append((port, begin, end))
    rng.shuffle(came)
    packets = [Sent(10 + at, begin, end, port, first[port]) for at, (port, begin, end) in enumerate(came)]
    in_order: dict[tuple[int, int], int] = {}
    for port in first:
        have: set[int] = set()
        for packet in packets:
            have |= {*range(packet.begin, packet.end)} if packet.port == port else set()
            for end_byte in range(1, size + 1):
                if have >= {*range(end_byte)}:
                    in_order.setdefault((port, end_byte), packet.at_ns)
    arrivals = Arrivals(captured(sent + [packet for packet in packets if rng.random() < captured_share]))
    keys = key_of(np.full(len(in_order), SERVER), ints(*(port for port, _ in in_order)))
    stream = arrivals.stream(keys, np.full(len(in_order), 5))
    ends, truth_ns = ints(*(end for _, end in in_order)), ints(*in_order.values())
    found = arrivals.readable_ns(stream, ends, truth_ns + (0 if captured_share < 1 else 5))
    known = found != NEVER
    assert found[known].tolist() == truth_ns[known].tolist()
    assert known.all() or captured_share < 1


def test_records_get_the_arrival_of_their_line() -> None:
    """Two users, one of whom connects again; a line whose connection is not known keeps its own stamp."""
    sent = [
        Sent(1),
        Sent(10, 0, 30),
        Sent(2, port=7, first=9),
        Sent(12, 0, 9, 7, 9),
        Sent(50, port=8),
        Sent(60, 0, 9, 8),
    ]
    connected = pd.DataFrame(
        [(0, 0, 40_000, 5), (1, 0, 7, 6), (0, 0, 8, 55), (2, 0, 9, 5)], columns=["user", "path", "port", "at_ns"]
    )
    echoed = pd.DataFrame(
        [(0, 1, 0, 0, 0, 15, 16, 30), (0, 2, 0, 0, 1, 61, 62, 5), (2, 1, 0, 0, 1, 11, 12, 5)], columns=[*ECHOED.fields]
    )
    delivered = pd.DataFrame([(1, 0, 1, 0, 0, 1, 14, 15, 9)], columns=[*DELIVERED.fields])
    echoed, delivered = stamped([echoed, delivered], connected, Arrivals(captured(sent)), SERVERS)
    assert echoed["received_ns"].tolist() == [10, 60, 11]
    assert echoed["exact"].tolist() == [2, 2, 1]
    assert delivered[["received_ns", "exact"]].to_numpy().tolist() == [[12, 2]]


@pytest.mark.parametrize("connections", [0, 1])
def test_no_records_are_no_failure(connections: int) -> None:
    connected = pd.DataFrame([(0, 0, 40_000, 5)] * connections, columns=["user", "path", "port", "at_ns"])
    nothing = pd.DataFrame(columns=[*ECHOED.fields], dtype="i8")
    (rows,) = stamped([nothing], connected, Arrivals(captured([Sent(1)])), SERVERS)
    assert rows.empty
