"""Which messages and files the machine disturbed: decided by the moments at which somebody had to run. Pure.

A message needs somebody to run at a few moments only: the load process when it is due and when it is sent, the server
when it arrives there, and the link's emulator when its packets are sent and when they are due. In between it waits in a
delay line, and no stall can do it harm. The server has answered when the emulator takes the answer's packet, and if the
emulator was late with it, it knows. So a message is disturbed if one of these moments, with fixed margins, meets a
stall that is long enough to matter on its path.

How long it took has no say: each message has as many moments as any other, and a slow one no more chance to meet a
stall. If all the time between them counted, slow messages would meet more stalls, and leaving them out would take away
the tail that is to be measured.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.samples import PATHS
from loadtests.stalls.intervals import Flags, Interval, Intervals, Ints

#: A stall matters if it is longer than this share of the path's round trip, and this much. What it held up is worked
#: off for as long after it.
RTT_SHARE, LEAST_NS = 0.02, 1_000_000
#: A stall that begins so soon after a moment still meets it: what is to be done takes a while, and the beginning is
#: known to a millisecond.
SOON_NS = 1_000_000
#: Times of the same moment, mapped from one clock to another in two processes, differ by less.
_CLOCKS_NS = 100_000
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


#: A packet with data from the server: the number of its path, when the emulator took it, and when it left.
PACKET = np.dtype([("path", "u1"), ("taken_ns", "<i8"), ("left_ns", "<i8")])


class Carried:
    """When the emulator took the packets from the server, and when they left it."""

    def __init__(self, packets: NDArray[Any]) -> None:
        """Args: packets, of `PACKET`, in the order in which they left."""
        self._of_path = {number: packets[packets["path"] == number] for number in range(len(PATHS))}

    def taken_ns(self, path: Ints, arrived_ns: Ints) -> Ints:
        """When the packets were taken that arrived then, as far as it is known; otherwise the time itself."""
        taken_ns = arrived_ns.copy()
        for number, packets in self._of_path.items():
            here = path == number
            if len(packets) and here.any():
                left_ns = packets["left_ns"]
                after = np.searchsorted(left_ns, arrived_ns[here]).clip(1, len(left_ns) - 1) if len(left_ns) > 1 else 0
                before = np.maximum(after - 1, 0)
                is_after = left_ns[after] - arrived_ns[here] <= arrived_ns[here] - left_ns[before]
                taken_ns[here] = packets["taken_ns"][np.where(is_after, after, before)]
        return taken_ns


class Disturbances:
    """What disturbed a trial, and the paths that its messages took."""

    def __init__(
        self,
        links: Mapping[str, LinkProfile],
        cores: Iterable[Interval],
        emulator: Iterable[Interval],
        carried: Carried | None = None,
    ) -> None:
        """
        Args:
            links: the link of each path; none if there is none of ours.
            cores: when a core was taken from us.
            emulator: when the emulator was late.
            carried: the packets that it carried; None if the kernel did, on any core.
        """
        self._links = list(links.values())
        cores, emulator = list(cores), list(emulator)
        self._least_ns = LEAST_NS + round(RTT_SHARE * min((link.rtt_s for link in self._links), default=0) * 1e9)
        self._cores = Intervals.longer_than(cores, self._least_ns)
        self._emulator = Intervals.longer_than(emulator, self._least_ns)
        self._all = Intervals([*cores, *emulator])
        self._carried = carried
        self._moments = {moment for link in self._links for moment in moments(link, is_emulated=carried is not None)}

    def messages(self, intended_ns: Ints, sent_ns: Ints) -> Flags:
        """Which of the messages could not be sent and taken in time, or be carried if nobody noted when that was."""
        found = self._held_up(intended_ns, intended_ns) | self._held_up(sent_ns, sent_ns)
        found |= self._emulator.meet(sent_ns, sent_ns)
        return found if self._carried else found | self._on_schedule(intended_ns)

    def arrivals(self, path: Ints, arrived_ns: Ints) -> Flags:
        """Which lines the server could not send in time, or the emulator not deliver, as far as it noted when."""
        if self._carried is None:
            return np.zeros(len(path), np.bool_)
        taken_ns = self._carried.taken_ns(path, arrived_ns)
        is_late = self._emulator.meet(arrived_ns - _CLOCKS_NS, arrived_ns + _CLOCKS_NS)
        return is_late | self._held_up(taken_ns, taken_ns) | self._emulator.meet(taken_ns - self._least_ns, taken_ns)

    def unanswered(self, intended_ns: Ints) -> Flags:
        """Which messages of which no answer came were disturbed at the moments that an answer would have had."""
        return self._on_schedule(intended_ns)

    def files(self, begun_ns: Ints, size_bytes: Ints) -> Flags:
        """Which files are disturbed: of those, for which stalls took more than the share of the time due to them."""
        slot_ns = np.max([_file_ns(link, size_bytes) for link in self._links] or [_file_ns(None, size_bytes)], axis=0)
        found: Flags = self._all.overlap_ns(begun_ns, begun_ns + slot_ns) > LEAST_NS + RTT_SHARE * slot_ns
        return found

    def _held_up(self, from_ns: Ints, to_ns: Ints) -> Flags:
        return self._cores.meet(from_ns - self._least_ns, to_ns + SOON_NS)

    def _on_schedule(self, intended_ns: Ints) -> Flags:
        """By the moments that the schedule and the links foresee, whenever jitter may put them."""
        found = np.zeros(len(intended_ns), np.bool_)
        for moment in self._moments:
            from_ns, to_ns = intended_ns + moment.earliest_ns, intended_ns + moment.latest_ns
            found |= self._emulator.meet(from_ns, to_ns)
            if moment.needs_cores:
                found |= self._held_up(from_ns, to_ns)
        return found


#: Of a trial whose machine did nothing else.
UNDISTURBED = Disturbances({}, (), ())


def moments(link: LinkProfile, *, is_emulated: bool) -> set[Moment]:
    """When a message over this link needs somebody to run after it was sent.

    The kernel notes when that is, so nobody needs to run then but who carries the packet. The emulator notes the true
    moments of each message; those of the ones that got no answer are foreseen, as short as the others.
    """
    up, down = (_reach_ns(link.moments(way), has_spread=not is_emulated) for way in ("up", "down"))
    return {Moment(*up, needs_cores=True), Moment(up[0] + down[0], up[1] + down[1], needs_cores=not is_emulated)}


def _reach_ns(directions: list[Direction], *, has_spread: bool) -> tuple[int, int]:
    """Between which times nearly all small packets arrive, however the link changes; without spread, one that does."""
    if not has_spread:
        return (round(directions[0].delay_s * 1e9),) * 2
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
