"""Turn: how much of what came in is handled in one turn of the loop, and who goes on in the next.

Whoever sends little is served in the turn in which it comes. Whoever has more than its share waits in a queue and is
served from what the others leave, or from a small part that is kept for the queue, a few lines at a time: however many
flood a server, a turn stays short.
"""

from collections import OrderedDict
from typing import Protocol

from chat.net.loop import Loop, Timer

#: Units of work (:mod:`chat.server.costs`) in one turn, for all together.
UNITS = 256.0
#: What each connection may have of a turn, whatever the others have had.
LEAST_UNITS = 8.0
#: What the queue may have of a turn, whatever the others have had.
QUEUE_UNITS = UNITS / 4


class Waiter(Protocol):
    """Has more to be handled."""

    def go_on(self) -> None:
        """Handle some more; queue again if that is not all."""


class Turn:
    """What is left of this turn, and the queue for the next ones. The owner calls :meth:`end` at the end of each."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._left = UNITS
        self._queue: OrderedDict[Waiter, None] = OrderedDict()
        #: Who has come to wait in this turn, and joins the queue at its end.
        self._new: OrderedDict[Waiter, None] = OrderedDict()
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Turn with {self._left:g} units left, {len(self._queue) + len(self._new)} waiting>"

    @property
    def share(self) -> float:
        """How many units may be spent on one connection now: what is left, shared with those who wait already."""
        return max(LEAST_UNITS, self._left / (1 + len(self._queue)))

    def spend(self, units: float) -> None:
        """So many were."""
        self._left -= units

    def queue(self, waiter: Waiter) -> None:
        """Let it go on in a turn to come."""
        self._new[waiter] = None
        self._go_on_soon()

    def forget(self, waiter: Waiter) -> None:
        """It does not go on."""
        self._queue.pop(waiter, None)
        self._new.pop(waiter, None)

    def end(self) -> None:
        """The next turn begins."""
        self._left = UNITS
        self._queue |= self._new
        self._new.clear()

    def _go_on_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(0, self._serve)

    def _serve(self) -> None:
        self._timer = None
        self._left = max(self._left, QUEUE_UNITS)
        while self._queue and self._left > 0:
            self._queue.popitem(last=False)[0].go_on()
        if self._queue or self._new:
            self._go_on_soon()
