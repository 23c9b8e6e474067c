"""What a link with a rate really carries: full packets, faster than it can send them, counted where they arrive."""

import contextlib
import select
import time
from dataclasses import dataclass

from loadtests.link.measure.probes import arrivals, open_ends
from loadtests.link.model.profile import ETHERNET_HEADER_BYTES, Direction

_IP_BYTES = 1500
_HEADER_BYTES = 20 + 8  # IPv4 and UDP
_FRAME_BITS = (_IP_BYTES + ETHERNET_HEADER_BYTES) * 8
#: So much of a second at the rate, in packets, but neither too few to tell nor too many to wait for.
_SHARE_OF_SECOND, _LEAST_PACKETS, _MOST_PACKETS = 0.5, 12, 3000
#: How much faster than the rate, of what survives the losses in front of it.
_OVERLOAD = 1.3
#: A queue of a few packets, or one before which packets are lost, would be empty at times: they come this much faster,
#: unless no process can send so fast.
_FLOOD, _LEAST_INTERVAL_S = 40, 0.0001
#: Where a machine cannot send as fast, what arrives is taken out of the socket after so many, or it would be lost; and
#: before the next ones we sleep for a moment, or a kernel with a single core would not get to let anything arrive.
_AT_ONCE, _BREATH_S = 32, 0.0001
#: How late a process sends a packet, or takes one on.
_LATENESS_S = 0.0002
#: The first arrivals find the queue still filling.
_SKIPPED_SHARE = 0.1
_QUIET_S = 0.2


@dataclass
class Arrivals:
    """When each full packet arrived, in seconds."""

    times_s: list[float]
    #: Whether the machine stalled meanwhile.
    is_disturbed: bool = False

    @property
    def rate_bps(self) -> float:
        """Bits per second between the arrivals, counted as `rate` counts them; not a number if too few came."""
        times_s = self.times_s[int(len(self.times_s) * _SKIPPED_SHARE) :]
        if len(times_s) < 2:
            return float("nan")
        return (len(times_s) - 1) * _FRAME_BITS / (times_s[-1] - times_s[0])


def interval_s(direction: Direction) -> float:
    """From one full packet to the next, of those that survive the losses in front of the rate."""
    full_s = direction.transmission_s(_IP_BYTES)
    bridged_s = 0.0 if direction.loss_ratio else direction.queue_s - full_s
    return min(full_s / _OVERLOAD, max(bridged_s / 2, full_s / _FLOOD, _LEAST_INTERVAL_S))


def busy_share(direction: Direction) -> float:
    """The least share of the time in which a right link has something to send: a short queue is empty at times."""
    bridged_s = direction.queue_s - direction.transmission_s(_IP_BYTES)
    idle_s = max(0.0, interval_s(direction) + _LATENESS_S - bridged_s)
    return direction.queue_s / (direction.queue_s + idle_s)


def packets_to_send(direction: Direction) -> int:
    """As many as fill the link for half a second, or for a dozen packets if those take longer."""
    full_s = direction.transmission_s(_IP_BYTES)
    count = min(_MOST_PACKETS, max(_LEAST_PACKETS, int(_SHARE_OF_SECOND / full_s)))
    return round(count * full_s / _OVERLOAD / interval_s(direction))


def packets_carried(direction: Direction) -> float:
    """How many of them a right link carries while they are sent; the rest is dropped, or queues."""
    return packets_to_send(direction) * interval_s(direction) / direction.transmission_s(_IP_BYTES)


def bulk_s(direction: Direction) -> float:
    """How long :func:`measure_rate` takes about."""
    sending_s = packets_to_send(direction) * _pause_s(direction)
    queued_s = (_OVERLOAD - 1) * sending_s
    return sending_s + min(queued_s, direction.queue_s) + direction.delay_s + _patience_s(direction)


def measure_rate(path: str, way: str, direction: Direction) -> Arrivals:
    """Overload one direction of a path for at most a second, or a dozen packets if those take longer."""
    count, pause_s, patience_s = packets_to_send(direction), _pause_s(direction), _patience_s(direction)
    found = Arrivals([])
    with contextlib.ExitStack() as stack:
        client, server = open_ends(path, stack)
        sender, receiver = (client, server) if way == "up" else (server, client)
        start_s = heard_s = time.monotonic()
        sent = 0
        while (now_s := time.monotonic()) < heard_s + patience_s:
            due = min(count, int((now_s - start_s) / pause_s) + 1)
            for _ in range(min(due - sent, _AT_ONCE)):
                with contextlib.suppress(BlockingIOError):  # lost, as in a full queue
                    sender.send(bytes(_IP_BYTES - _HEADER_BYTES))
                sent += 1
                heard_s = now_s
            next_s = start_s + sent * pause_s if sent < count else heard_s + patience_s
            if select.select([receiver], (), (), max(_BREATH_S, next_s - now_s))[0]:
                heard_s = time.monotonic()
                found.times_s += [arrived_ns / 1e9 for _, arrived_ns in arrivals(receiver)]
    return found


def _pause_s(direction: Direction) -> float:
    """From one packet to the next, lost ones included."""
    return interval_s(direction) * (1 - direction.loss_ratio)


def _patience_s(direction: Direction) -> float:
    """How long nothing may come before all has come."""
    return direction.delay_s + 4 * direction.jitter_s + 3 * direction.transmission_s(_IP_BYTES) + _QUIET_S
