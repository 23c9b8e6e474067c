"""Loop: one thread's sockets and timers.

The default selector is looked up when a Loop is made, never at import: under gevent it is then the cooperating one.
A host that has an event loop of its own passes a real selector, watches :meth:`Loop.fileno`, and calls
:meth:`Loop.run_once` with 0 whenever that is readable or :meth:`Loop.next_deadline_ns` has come.
"""

import contextlib
import heapq
import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

#: No selector waits longer than about 24 days.
LONGEST_WAIT_S = 86_400.0

#: Called with the ready events: a mask of selectors.EVENT_READ and EVENT_WRITE.
IoCallback = Callable[[int], None]


class Timer:
    """A callback that is due at a time (CLOCK_MONOTONIC, ns), unless cancelled."""

    __slots__ = ("callback", "when_ns")

    def __init__(self, when_ns: int, callback: Callable[[], None]) -> None:
        self.when_ns = when_ns
        self.callback: Callable[[], None] | None = callback

    def __repr__(self) -> str:
        return f"<Timer {'at' if self.callback else 'cancelled, was at'} {self.when_ns} ns>"

    def cancel(self) -> None:
        """Never call the callback; drop it now, so that what it refers to can be freed."""
        self.callback = None


class Loop:
    """Each turn: ready sockets, calls from other threads, due timers, end-of-turn hooks."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()
        self._timers: list[tuple[int, int, Timer]] = []
        self._timer_numbers = itertools.count()
        self._hooks: list[Callable[[], None]] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self.add(self._wakened, selectors.EVENT_READ, self._make_calls)
        self._running = False

    def __repr__(self) -> str:
        return f"<Loop {len(self._selector.get_map()) - 1} socket(s), {len(self._timers)} timer(s)>"

    def fileno(self) -> int:
        """The selector's own descriptor, readable when any socket is ready.

        Raises:
            AttributeError: this selector has none; `epoll` and `kqueue` have.
        """
        number: int = self._selector.fileno()  # type: ignore[attr-defined]
        return number

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC in ns."""
        return time.monotonic_ns()

    def add(self, sock: Any, events: int, callback: IoCallback) -> None:
        """Call back whenever the socket, or descriptor, is ready for one of these events."""
        self._selector.register(sock, events, callback)

    def modify(self, sock: Any, events: int, callback: IoCallback) -> None:
        """Wait for these events instead."""
        self._selector.modify(sock, events, callback)

    def remove(self, sock: Any) -> None:
        """Forget the socket. To be called before it is closed."""
        self._selector.unregister(sock)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back once, not before this time (CLOCK_MONOTONIC, ns)."""
        timer = Timer(when_ns, callback)
        # The number keeps timers for the same moment in their order, and Timers from being compared.
        heapq.heappush(self._timers, (when_ns, next(self._timer_numbers), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, not before this many seconds from now."""
        return self.call_at(self.now_ns() + int(delay_s * 1e9), callback)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn. For other threads and signal handlers; it wakes the loop up."""
        self._calls.append(callback)
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            self._waker.send(b"\0")

    def at_turn_end(self, hook: Callable[[], None]) -> None:
        """Call this at the end of every turn."""
        self._hooks.append(hook)

    def not_at_turn_end(self, hook: Callable[[], None]) -> None:
        """Undo :meth:`at_turn_end`."""
        self._hooks.remove(hook)

    def next_deadline_ns(self) -> int | None:
        """When the next timer is due (CLOCK_MONOTONIC, ns), or None."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def run_once(self, timeout_s: float | None = None) -> None:
        """Run one turn; wait at most this long for something to happen. None: until it does; 0: not at all."""
        deadline_ns = self.next_deadline_ns()
        if deadline_ns is not None:
            until_deadline_s = max(0.0, (deadline_ns - self.now_ns()) / 1e9)
            timeout_s = min(until_deadline_s, LONGEST_WAIT_S if timeout_s is None else timeout_s)
        for key, events in self._selector.select(timeout_s):
            key.data(events)
        # Only timers that are due now: one that sets itself to "at once" must not keep the turn from ending, even where
        # the clock stands still while we compute.
        now_ns, due = self.now_ns(), []
        while self._timers and self._timers[0][0] <= now_ns:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            if timer.callback is not None:
                timer.callback()
        for hook in self._hooks:
            hook()

    def run(self) -> None:
        """Run turns until :meth:`stop`."""
        self._running = True
        while self._running:
            self.run_once()

    def stop(self) -> None:
        """Let :meth:`run` return after this turn."""
        self._running = False

    def close(self) -> None:
        """Free the loop's own descriptors. Sockets still on it are their owners' business."""
        self._selector.close()
        self._waker.close()
        self._wakened.close()

    def _make_calls(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakened.recv(4096):
                pass
        while self._calls:
            self._calls.popleft()()
