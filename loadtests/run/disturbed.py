"""Which messages and files the machine disturbed: decided by when they were due, never by how long they took. Pure.

A message needs somebody to run at a few moments only, and the schedule and the links say when these are: the load
process at its intended time, the server when it arrives there, and the link's emulator whenever a packet is due. In
between it waits in a delay line, and no stall can do it harm. So a message is disturbed if one of its moments, with
fixed margins, meets a stall that is long enough to matter on its path.

Its own response time has no say: slow messages take longer, so they would meet more stalls, and leaving them out would
take away the tail that is to be measured.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.stalls.intervals import MARGIN_NS, Flags, Interval, Intervals, Ints

#: A stall matters if it is longer than this share of the path's round trip, and this much.
RTT_SHARE, LEAST_NS = 0.02, 1_000_000
#: Full packets, of files.
_PACKET_BYTES = 1500
#: A file's slot: so many round trips for its offer and TCP's slow start, besides the time that the links' rate takes.
_FILE_RTTS = 12


class Moment(NamedTuple):
    """When, counted from a message's intended time, somebody must run for it."""

    earliest_ns: int
    latest_ns: int
    #: Any of our processes, on whichever core; otherwise the emulator alone.
    needs_cores: bool


class Disturbances:
    """What disturbed a trial, and the paths that its messages took."""

    def __init__(
        self,
        links: Mapping[str, LinkProfile],
        cores: Iterable[Interval],
        emulator: Iterable[Interval],
        *,
        is_emulated: bool,
    ) -> None:
        """
        Args:
            links: the link of each path; none if there is none of ours.
            cores: when a core was taken from us.
            emulator: when the emulator was late.
            is_emulated: whether it carries the packets; otherwise the kernel does, on any core.
        """
        self._links = list(links.values())
        cores, emulator = list(cores), list(emulator)
        least_ns = LEAST_NS + RTT_SHARE * min((link.rtt_s for link in self._links), default=0) * 1e9
        self._cores = Intervals.longer_than(cores, least_ns)
        self._emulator = Intervals.longer_than(emulator, least_ns)
        self._all = Intervals([*cores, *emulator])
        self._moments = {moment for link in self._links for moment in moments(link, is_emulated=is_emulated)}
        self._moments |= {Moment(0, 0, needs_cores=True)}

    def messages(self, intended_ns: Ints) -> Flags:
        """Which of the messages intended at these times are disturbed; so are the deliveries of each."""
        found = np.zeros(len(intended_ns), np.bool_)
        for moment in self._moments:
            from_ns, to_ns = intended_ns + moment.earliest_ns, intended_ns + moment.latest_ns
            found |= self._emulator.meet(from_ns, to_ns)
            if moment.needs_cores:
                found |= self._cores.meet(from_ns - MARGIN_NS, to_ns + MARGIN_NS)
        return found

    def files(self, begun_ns: Ints, size_bytes: Ints) -> Flags:
        """Which files are disturbed: of those, for which stalls took more than the share of the time due to them."""
        slot_ns = np.max([_file_ns(link, size_bytes) for link in self._links] or [_file_ns(None, size_bytes)], axis=0)
        found: Flags = self._all.overlap_ns(begun_ns, begun_ns + slot_ns) > LEAST_NS + RTT_SHARE * slot_ns
        return found


#: Of a trial whose machine did nothing else.
UNDISTURBED = Disturbances({}, (), (), is_emulated=False)


def moments(link: LinkProfile, *, is_emulated: bool) -> set[Moment]:
    """When a message over this link needs somebody to run after it was sent.

    The kernel notes when that is, so nobody needs to run then but who carries the packet.
    """
    up, down = (_reach_ns(link.moments(way)) for way in ("up", "down"))
    return {Moment(*up, needs_cores=True), Moment(up[0] + down[0], up[1] + down[1], needs_cores=not is_emulated)}


def _reach_ns(directions: list[Direction]) -> tuple[int, int]:
    """Between which times nearly all small packets arrive, however the link changes."""
    spread = [one.jitter_s * (1 if one.distribution == "uniform" else 2) for one in directions]
    earliest_s = min(max(0.0, one.delay_s - reach_s) for one, reach_s in zip(directions, spread, strict=True))
    latest_s = max(
        one.delay_s + reach_s + one.transmission_s(_PACKET_BYTES)
        for one, reach_s in zip(directions, spread, strict=True)
    )
    return round(earliest_s * 1e9), round(latest_s * 1e9)


def _file_ns(link: LinkProfile | None, size_bytes: Ints) -> Ints:
    """How long files of these sizes take over a link where nothing goes wrong, roughly."""
    if link is None:
        return np.zeros(len(size_bytes), np.int64)
    packets = np.ceil(size_bytes / _PACKET_BYTES)
    sending_s = packets * max(link.up.transmission_s(_PACKET_BYTES), link.down.transmission_s(_PACKET_BYTES))
    slot_ns: Ints = ((sending_s + _FILE_RTTS * link.rtt_s) * 1e9).astype(np.int64)
    return slot_ns
