"""A chat Loop inside gevent: one real epoll for all clients of a process, whose descriptor gevent's hub watches.

That costs half of a cooperative selector per client. Timers go through a timerfd in that epoll, since gevent's own
sleep is a millisecond coarse.
"""

import contextlib
import ctypes
import os
import selectors
import struct
from collections.abc import Callable

import gevent
from gevent import monkey
from gevent.event import Event

from chat.net.loop import Loop, Timer


class TimerFd:
    """A kernel timer with a file descriptor (timerfd_create(2)): wakes an epoll with µs precision."""

    _MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, 0o2004000, 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(self._MONOTONIC, self._NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        return int(self._fd)

    def arm(self, when_ns: int) -> None:
        """Become readable at `when_ns` (CLOCK_MONOTONIC); a time in the past means at once."""
        when_ns = max(when_ns, 1)  # 0 would disarm it
        spec = struct.pack("qqqq", 0, 0, *divmod(when_ns, 1_000_000_000))
        self._libc.timerfd_settime(self._fd, self._ABSOLUTE, spec, None)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        os.close(self._fd)


class HubLoop(Loop):
    """A chat Loop that runs in a greenlet of its own, woken by gevent's hub."""

    def __init__(self) -> None:
        super().__init__(selector=monkey.get_original("selectors", "EpollSelector")())
        self._timerfd = TimerFd()
        self._armed_ns: int | None = None
        self.add(self._timerfd, selectors.EVENT_READ, self._on_timer)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = super().call_at(when_ns, callback)
        self._arm()
        return timer

    def serve(self) -> None:
        """Run until killed; an exception of a callback ends it (it would be a bug)."""
        hub = gevent.get_hub()
        watcher = hub.loop.io(self.fileno(), 1)
        while True:
            self.run_once(0)
            self._arm()
            hub.wait(watcher)

    def sleep_until(self, when_ns: int) -> None:
        """Suspend the calling greenlet until `when_ns`; returns at once when that is past."""
        if when_ns <= self.now_ns():
            return
        woken = Event()
        timer = self.call_at(when_ns, woken.set)
        try:
            woken.wait()
        finally:
            timer.cancel()

    def _arm(self) -> None:
        deadline_ns = self.next_deadline_ns()
        if deadline_ns is not None and (self._armed_ns is None or deadline_ns < self._armed_ns):
            self._timerfd.arm(deadline_ns)
            self._armed_ns = deadline_ns

    def _on_timer(self, _events: int) -> None:
        self._timerfd.clear()
        self._armed_ns = None
