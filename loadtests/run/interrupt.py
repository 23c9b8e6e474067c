"""Ctrl-C that is not forgotten."""

import signal
from types import FrameType


class Interrupt:
    """Notes SIGINT, besides raising KeyboardInterrupt.

    Python drops a KeyboardInterrupt that happens to be raised in a destructor or a callback of the collector; so the
    signal is noted too, and raised again at the next :meth:`check`.
    """

    def __init__(self) -> None:
        self._pressed = False
        signal.signal(signal.SIGINT, self._press)

    def check(self) -> None:
        """Raises KeyboardInterrupt: the user has pressed Ctrl-C at some time."""
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt
