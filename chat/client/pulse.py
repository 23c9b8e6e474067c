"""Pulse: how long a connection has left a question open. Pure; all times are CLOCK_MONOTONIC in ns.

Everything that a client sends is answered, so that anything sent is a question and anything received shows life.
"""

#: Time-outs for retransmission, as RFC 6298 computes them, that may pass before a silent connection counts as stalled:
#: what two losses of the same segment in a row cost, and some more.
PATIENCE_RTOS = 4
#: The kernel's own lower bound of that time-out, and the least that is taken for a stall.
MIN_RTO_NS = 200_000_000
SHORTEST_PATIENCE_NS = 1_000_000_000


def patience_ns(rtt_us: int, rttvar_us: int) -> int:
    """How long a connection with this measured round-trip time, and its mean deviation, may leave a question open."""
    rto_ns = max(MIN_RTO_NS, (rtt_us + 4 * rttvar_us) * 1_000)
    return max(SHORTEST_PATIENCE_NS, PATIENCE_RTOS * rto_ns)


class Pulse:
    """When we last heard something, and since when we have been waiting for more."""

    __slots__ = ("_asked_ns", "_heard_ns")

    def __init__(self, now_ns: int) -> None:
        self._heard_ns = now_ns
        self._asked_ns: int | None = None

    def heard(self, now_ns: int) -> None:
        """Something came."""
        self._heard_ns = now_ns
        self._asked_ns = None

    def asked(self, now_ns: int) -> None:
        """Something was sent."""
        if self._asked_ns is None:
            self._asked_ns = now_ns

    def quiet_ns(self, now_ns: int) -> int:
        """For how long nothing came while nothing was asked: time to ask."""
        return now_ns - self._heard_ns if self._asked_ns is None else 0

    def silent_ns(self, now_ns: int) -> int:
        """For how long a question has been open."""
        return 0 if self._asked_ns is None else now_ns - self._asked_ns
