"""DelayWindow: how much of a file may be under way so that talk on the same link waits hardly longer. Pure.

LEDBAT (RFC 6817), with chunks and credits: the window grows while the round-trip time stays near the smallest one seen,
and shrinks when it is longer, since then our own bytes stand in a queue, in which everybody else's stand too. A TCP
connection alone would fill that queue. All times are in ns.
"""

from collections import deque

#: How much longer than necessary a round trip may become.
TARGET_NS = 40_000_000
#: The smallest of so many recent round trips is taken, so that jitter does not count as a queue (RFC 6817, 3.4.2).
RECENT = 16
#: The smallest round trip is that of the last one to two such times, since routes change (RFC 6817, 3.4.2: 10 minutes).
BASE_NS = 300_000_000_000


class DelayWindow:
    """How many bytes may be unconfirmed.

    Args:
        step_bytes: size of a chunk: the window is never smaller.
        most_bytes: what the receiver grants.
    """

    def __init__(self, step_bytes: int, most_bytes: int) -> None:
        self.size_bytes = 2 * step_bytes
        self._step_bytes = step_bytes
        self._most_bytes = max(most_bytes, step_bytes)
        #: Up to here it grows by half each round trip, as long as no queue shows.
        self._threshold_bytes = self._most_bytes
        self._recent_ns: deque[int] = deque(maxlen=RECENT)
        self._base_ns: deque[int] = deque(maxlen=2)
        self._base_until_ns = 0

    def __repr__(self) -> str:
        return f"<DelayWindow {self.size_bytes} B>"

    def restart(self) -> None:
        """The connection is another one: its round-trip time too, and half of what went before is a careful guess."""
        if self._base_ns:
            self._threshold_bytes = max(self._step_bytes, self.size_bytes // 2)
        self.size_bytes = min(self.size_bytes, 2 * self._step_bytes)
        self._recent_ns.clear()
        self._base_ns.clear()
        self._base_until_ns = 0

    def confirmed_again(self, count_bytes: int) -> None:
        """So many bytes were confirmed that had been sent more than once.

        How long that took is unknown (Karn's algorithm): perhaps the server knew them already, and answered itself.
        """
        self.size_bytes = max(self.size_bytes, min(self.size_bytes + count_bytes // 2, self._threshold_bytes))

    def confirmed(self, count_bytes: int, under_way_bytes: int, rtt_ns: int, now_ns: int) -> None:
        """So many bytes were confirmed after this time; `under_way_bytes` were unconfirmed just before."""
        queue_ns = self._queue_ns(rtt_ns, now_ns)
        room_ns = TARGET_NS - queue_ns
        if room_ns < TARGET_NS / 2:
            self._threshold_bytes = min(self._threshold_bytes, self.size_bytes)
        if self.size_bytes < self._threshold_bytes:
            growth = count_bytes / 2
        else:
            # Each round trip half of what is missing to the target, or too much: a faster loop would swing.
            growth = count_bytes * min(0.5, max(-0.5, room_ns / (2 * max(1, rtt_ns))))
        if growth > 0 and under_way_bytes + self._step_bytes < self.size_bytes:
            return  # it was not used: nothing is known of a larger one
        self.size_bytes = round(min(max(self.size_bytes + growth, self._step_bytes), self._most_bytes))

    def _queue_ns(self, rtt_ns: int, now_ns: int) -> int:
        self._recent_ns.append(rtt_ns)
        if now_ns >= self._base_until_ns:
            self._base_ns.append(rtt_ns)
            self._base_until_ns = now_ns + BASE_NS
        self._base_ns[-1] = min(self._base_ns[-1], rtt_ns)
        return min(self._recent_ns) - min(self._base_ns)
