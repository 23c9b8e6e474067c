"""Arrivals: packets of TCP streams → when each byte of them could be read. Pure.

TCP hands over bytes in order, so a byte can be read when it has arrived and all before it have: the latest of the first
arrivals of all bytes up to it. Retransmissions, duplicates and overtaking need no other rule.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Packets = NDArray[np.void]

#: One captured packet. `at_ns` is CLOCK_MONOTONIC, `server` the address that sent it and `port` the one it was sent to,
#: `length` counts payload bytes.
PACKET = np.dtype(
    [("at_ns", "<i8"), ("sequence", "<u4"), ("server", "<u4"), ("length", "<u4"), ("port", "<u2"), ("is_syn", "?")]
)
#: A time later than any: it has not arrived, as far as is known.
NEVER = np.iinfo(np.int64).max
#: Streams are laid one after the other on one axis of bytes, so far apart.
_STREAM_BYTES = 1 << 40


class Arrivals:
    """The streams of a capture, from each server address and to each port, every connection a stream of its own."""

    def __init__(self, packets: Packets, *, repeats_are_doubtful: bool = False) -> None:
        """
        Args:
            packets: in the order in which they arrived, connections with their beginning.
            repeats_are_doubtful: the link corrupts packets, which the receiver then discards. What came twice may have
                been spoiled the first time, and counts as not seen.
        """
        key = key_of(packets["server"], packets["port"])
        order = np.argsort(key, kind="stable")
        packets, key = packets[order], key[order]
        starts = _first_syns(packets, key)
        self._start_key = key[starts]
        self._start_ns = packets["at_ns"][starts].astype(np.int64)
        stream = np.searchsorted(starts, np.arange(len(packets)), side="right") - 1
        offset = _offsets(packets["sequence"], starts, stream)
        begin, end = np.maximum(offset, 0), offset + packets["length"]
        known = (stream >= 0) & (end > begin) & (end < _STREAM_BYTES)
        known[known] &= self._start_key[stream[known]] == key[known]
        place = stream * _STREAM_BYTES
        self._edges, self._first_ns = _first_arrivals(
            (place + begin)[known],
            (place + end)[known],
            packets["at_ns"][known].astype(np.int64),
            np.arange(len(starts)) * _STREAM_BYTES,
            repeats_are_doubtful,
        )

    def stream(self, key: Ints, by_ns: Ints) -> Ints:
        """The number of the stream, of all with this key, that was the last to begin by then; -1 if there is none."""
        return latest(self._start_key, self._start_ns, key, by_ns)

    def began_ns(self, stream: Ints) -> Ints:
        """When streams began."""
        return self._start_ns[stream]

    def readable_ns(self, stream: Ints, end_byte: Ints, read_by_ns: Ints) -> Ints:
        """When a line, of which its stream's first `end_byte` bytes end with the last one, could be read.

        NEVER where that is not known: its stream is not (-1), or bytes up to it were not captured, or not their first
        copy, and might have come last. That they had come is known from a line behind them that was read.

        Args:
            read_by_ns: when, at the latest, everything up to the line had arrived.
        """
        place = stream * _STREAM_BYTES + end_byte
        interval = np.searchsorted(self._edges, place) - 1
        known = (stream >= 0) & (end_byte > 0) & (interval < len(self._first_ns))
        hole_ns = self._hole_ns(place[known], read_by_ns[known])
        seen_ns = np.where(self._first_ns == NEVER, 0, self._first_ns)
        streams = np.searchsorted(self._edges, np.arange(len(self._start_ns) + 1) * _STREAM_BYTES)
        for begin, end in itertools.pairwise(streams):
            for times_ns in (seen_ns[begin:end], hole_ns[begin:end]):
                np.maximum.accumulate(times_ns, out=times_ns)
        readable_ns = np.full(len(place), NEVER)
        interval = interval[known]
        is_last = (seen_ns[interval] > hole_ns[interval]) & (seen_ns[interval] <= read_by_ns[known])
        readable_ns[known] = np.where(is_last, seen_ns[interval], NEVER)
        return readable_ns

    def _hole_ns(self, place: Ints, read_by_ns: Ints) -> Ints:
        """By when what each interval that was not captured holds had arrived; 0 for the others.

        NEVER behind the last byte that was captured of a stream.
        """
        order = np.lexsort((read_by_ns, place))
        place, read_by_ns = np.append(place[order], NEVER), np.append(read_by_ns[order], NEVER)
        hole_ns = np.zeros(len(self._first_ns), np.int64)
        holes = np.flatnonzero(self._first_ns == NEVER)
        end = np.append(self._edges, 0)[holes + 1]
        is_last = end % _STREAM_BYTES == 0  # what follows belongs to another stream
        hole_ns[holes] = np.where(is_last, NEVER, read_by_ns[np.searchsorted(place, end)])
        return hole_ns


def key_of(server: NDArray[Any], port: NDArray[Any]) -> Ints:
    """What tells the connections of one client host apart at any one time."""
    key: Ints = server.astype(np.int64) << 16 | port
    return key


def latest(group: Ints, at_ns: Ints, asked_group: Ints, asked_ns: Ints) -> Ints:
    """For each that is asked for, the place of the last of its group that is not later; -1 if there is none."""
    if not len(group) or not len(asked_group):
        return np.full(len(asked_group), -1)
    groups, code = np.unique(group, return_inverse=True)
    asked_code = np.searchsorted(groups, asked_group)
    zero_ns = min(at_ns.min(), asked_ns.min())
    span_ns = max(at_ns.max(), asked_ns.max()) - zero_ns + 1
    axis = code * span_ns + at_ns - zero_ns
    order = np.argsort(axis, kind="stable")
    found = order[np.searchsorted(axis[order], asked_code * span_ns + asked_ns - zero_ns, side="right") - 1]
    fits = (group[found] == asked_group) & (at_ns[found] <= asked_ns)
    return np.where(fits, found, -1)


def _first_syns(packets: Packets, key: Ints) -> Ints:
    """Where connections begin: a SYN that is no repetition of the one before it."""
    syns = np.flatnonzero(packets["is_syn"])
    is_new = np.ones(len(syns), bool)
    before, after = syns[:-1], syns[1:]
    is_new[1:] = (key[after] != key[before]) | (packets["sequence"][after] != packets["sequence"][before])
    return syns[is_new]


def _offsets(sequence: NDArray[np.uint32], starts: Ints, stream: Ints) -> Ints:
    """Place of each packet's first byte in its stream; sequence numbers wrap around after 4 GiB.

    Packets that follow each other are less than half of that apart, whichever way; the SYN itself counts as one byte.
    """
    steps = np.zeros(len(sequence), np.int64)
    steps[1:] = np.diff(sequence).view(np.int32)
    travelled = np.cumsum(steps)
    return travelled - travelled[starts][stream] - 1 if len(starts) else travelled


def _first_arrivals(
    begin: Ints, end: Ints, at_ns: Ints, stream_begins: Ints, repeats_are_doubtful: bool
) -> tuple[Ints, Ints]:
    """Edges of intervals, and when each interval, from its edge to the next, first arrived; NEVER if it did not."""
    edges = np.unique(np.concatenate([stream_begins, begin, end]))
    low, high = np.searchsorted(edges, begin), np.searchsorted(edges, end)
    # Every interval of every packet: most packets have one.
    counts = high - low
    intervals = np.arange(counts.sum()) + np.repeat(low - (np.cumsum(counts) - counts), counts)
    first_ns = np.full(len(edges), NEVER)
    np.minimum.at(first_ns, intervals, np.repeat(at_ns, counts))
    if repeats_are_doubtful:
        first_ns[np.bincount(intervals, minlength=len(edges)) > 1] = NEVER
    return edges, first_ns
