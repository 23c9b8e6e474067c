"""Absent: sessions without a connection, which are kept for a while for their clients to come back."""

from collections import OrderedDict, defaultdict
from typing import NamedTuple

from chat.protocol.limits import Limits
from chat.server.members import Session


class Absence(NamedTuple):
    """How long (ns) it is kept, from where its last connection came, and why it will have left."""

    until_ns: int
    origin: str
    reason: str


class Absent:
    """As many as there may be connections, in all and from one address: who leaves more of them loses its oldest.

    Whoever is kept hears everything and is in all lists, so that sessions that cost no connection must not pile up.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        #: In the order in which they went, so that those to be ended next are the first.
        self._all: OrderedDict[Session, Absence] = OrderedDict()
        self._from: defaultdict[str, dict[Session, None]] = defaultdict(dict)

    def __repr__(self) -> str:
        return f"<Absent {len(self._all)} session(s)>"

    def add(self, session: Session, absence: Absence) -> tuple[Session, str] | None:
        """One more; which one is to be ended instead, and why it will have left, if there are too many."""
        self._all[session] = absence
        mine = self._from[absence.origin]
        mine[session] = None
        limits = self._limits
        if limits.connections_per_address and len(mine) > limits.connections_per_address:
            oldest = next(iter(mine))
        elif limits.connections and len(self._all) > limits.connections:
            oldest = next(iter(self._all))
        else:
            return None
        return oldest, self._all[oldest].reason

    def discard(self, session: Session) -> None:
        """It is not absent any more, if it was."""
        absence = self._all.pop(session, None)
        if absence is not None:
            mine = self._from[absence.origin]
            del mine[session]
            if not mine:
                del self._from[absence.origin]

    def due(self, now_ns: int) -> tuple[Session, str] | None:
        """The next one that was kept until now, and why it will have left."""
        for session, absence in self._all.items():
            return (session, absence.reason) if absence.until_ns <= now_ns else None
        return None

    def clear(self) -> None:
        """Nobody is kept."""
        self._all.clear()
        self._from.clear()
