"""Ctrl-C that is not forgotten."""

import signal
import time
from types import FrameType

#: So soon after another, it is the same.
ECHO_S = 1.0


class Interrupt:
    """Notes SIGINT, besides raising KeyboardInterrupt.

    Python drops a KeyboardInterrupt that happens to be raised in a destructor or a callback of the collector; so the
    signal is noted too, and raised again at the next :meth:`check`. What arrives twice at once is one: `timeout` and
    others send it to a process and then to its group.
    """

    def __init__(self) -> None:
        self._pressed_s: float | None = None
        signal.signal(signal.SIGINT, self._press)

    def check(self) -> None:
        """Raises KeyboardInterrupt: the user has pressed Ctrl-C at some time."""
        if self._pressed_s is not None:
            raise KeyboardInterrupt

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        is_echo = self._pressed_s is not None and now_s - self._pressed_s < ECHO_S
        if not is_echo:
            self._pressed_s = now_s
            raise KeyboardInterrupt
