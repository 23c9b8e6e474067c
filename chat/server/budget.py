"""Budget: what a client may ask of a server in a second; a token bucket, in units of work.

Whoever has spent more than it had is read no further until it has made up for it: nothing is lost, it waits. Who chats
as people do never notices.
"""

import copy
from collections import Counter, defaultdict
from typing import Self

from chat.protocol.limits import Limits

#: How often budgets that are full again are looked for, to be forgotten.
TIDY_NS = 10_000_000_000
#: Who comes makes up for no more (s) of what somebody else from the same address has spent, as long as there is another
#: store for it: there may be many behind it, who have 10 s to come in.
OTHERS_S = 5.0


class Budget:
    """Units are earned at a constant rate, up to a store."""

    __slots__ = ("_balance", "_paid", "_per_ns", "_since_ns", "_store")

    def __init__(self, limits: Limits, now_ns: int) -> None:
        self._per_ns = limits.cost_per_s / 1e9
        self._store = self._balance = float(limits.cost_burst)
        self._since_ns = now_ns
        #: Units that were paid for what has not come a second time.
        self._paid = 0.0

    def __repr__(self) -> str:
        return f"<Budget {self._balance:.1f} of {self._store:g}>"

    def pay(self, units: float, now_ns: int, *, is_copy: bool) -> int:
        """Spend them for a message; for the copy of one, what has not been paid for."""
        if is_copy:
            free = min(units, self._paid)
            self._paid -= free
            units -= free
        else:
            self._paid = min(self._store, self._paid + units)
        return self.spend(units, now_ns)

    def spend(self, units: float, now_ns: int) -> int:
        """How long (ns) to wait before anything more is spent; 0: not at all."""
        earned = (now_ns - self._since_ns) * self._per_ns
        self._since_ns = now_ns
        self._balance = min(self._store, self._balance + earned) - units
        return 0 if self._balance >= 0 else int(-self._balance / self._per_ns) + 1

    def as_of(self, now_ns: int) -> Self:
        """A copy that from now on is somebody else's."""
        mine = copy.copy(self)
        mine._paid = 0.0
        mine.spend(0, now_ns)
        return mine

    @property
    def balance(self) -> float:
        """What there was when it was last spent from."""
        return self._balance

    @property
    def full(self) -> bool:
        """Whether it was full when it was last spent from."""
        return self._balance == self._store


class Budgets:
    """Of those who come, by address. What somebody who has gone had left, if it was not everything, the next one from
    there begins with: to come again saves nothing up. With who is still there nobody shares. If that is far too little,
    it begins with nothing instead; but an address has no more stores than it may have connections.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left: defaultdict[str, list[Budget]] = defaultdict(list)
        #: How many connections from each address there are.
        self._open: Counter[str] = Counter()
        self._tidied_ns = 0

    def __len__(self) -> int:
        return sum(map(len, self._left.values()))

    def begin(self, origin: str, now_ns: int) -> Budget | None:
        """For a connection from there; None: it may ask for as much as it likes."""
        limits = self._limits
        if not limits.cost_per_s:
            return None
        self._open[origin] += 1
        left = self._left.get(origin)
        if not left:
            return Budget(limits, now_ns)
        is_too_little = left[-1].spend(0, now_ns) > OTHERS_S * 1e9
        if is_too_little and self._open[origin] + len(left) <= limits.connections_per_address:
            budget = Budget(limits, now_ns)
            budget.spend(limits.cost_burst, now_ns)
            return budget
        budget = left.pop()
        if not left:
            del self._left[origin]
        return budget

    def end(self, origin: str, own: Budget, session: Budget, now_ns: int) -> None:
        """A connection from there is gone, which had this, and then the one of its session, if that is another: it
        leaves the one with less, since it leaves no more than it took.
        """
        self._open[origin] -= 1
        if not self._open[origin]:
            del self._open[origin]
        rest = min(own.as_of(now_ns), session.as_of(now_ns), key=lambda each: each.balance)
        if not rest.full:
            self._left[origin].append(rest)
        if now_ns - self._tidied_ns > TIDY_NS:
            self._tidied_ns = now_ns
            self._tidy(now_ns)

    def _tidy(self, now_ns: int) -> None:
        """Forget those that are full again."""
        for origin, budgets in [*self._left.items()]:
            owing = [rest for rest in (budget.as_of(now_ns) for budget in budgets) if not rest.full]
            if owing:
                self._left[origin] = owing
            else:
                del self._left[origin]
