"""Budget: what a client may ask of a server in a second; a token bucket, in units of work.

Whoever has spent more than it had is read no further until it has made up for it: nothing is lost, it waits. Who chats
as people do never notices.
"""

from chat.protocol.limits import Limits


class Budget:
    """Units are earned at a constant rate, up to a store."""

    __slots__ = ("_balance", "_per_ns", "_since_ns", "_store")

    def __init__(self, limits: Limits, now_ns: int) -> None:
        self._per_ns = limits.cost_per_s / 1e9
        self._store = self._balance = float(limits.cost_burst)
        self._since_ns = now_ns

    def __repr__(self) -> str:
        return f"<Budget {self._balance:.1f} of {self._store:g}>"

    def spend(self, units: float, now_ns: int) -> int:
        """How long (ns) to wait before anything more is spent; 0: not at all."""
        earned = (now_ns - self._since_ns) * self._per_ns
        self._since_ns = now_ns
        self._balance = min(self._store, self._balance + earned) - units
        return 0 if self._balance >= 0 else int(-self._balance / self._per_ns) + 1
