"""The interactive client in a pipe: plain lines in and out, without a terminal's help, so that scripts can use it."""

import codecs
import contextlib
import os
import selectors
import signal
import sys
from collections import deque

from chat.console.commands import enter
from chat.console.console import Console
from chat.net.loop import Loop


class Pipe:
    """Drives a console whose input is a pipe or a file: plain lines.

    At their end, or after `/exit`, it leaves as soon as everything that was said has come back.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._lines: deque[str] = deque()
        self._at_end = False
        self._after_command = False
        self._input = sys.stdin.fileno()

    def show(self, line: str, style: str = "", speaker: str = "", *, is_for_us: bool = False) -> None:
        """Print the line at once."""
        print(line, flush=True)

    def run(self, console: Console) -> None:
        """Until the client has ended."""
        console.client.connect()
        try:
            self._loop.add(self._input, selectors.EVENT_READ, lambda _: self._read())
        except PermissionError:  # a file is always ready, so it cannot be waited for
            while not self._at_end:
                self._read()
        # Not a KeyboardInterrupt: raised in the middle of a turn, it would lose what that turn had just read.
        signal.signal(signal.SIGINT, lambda *_: self._loop.call_soon_threadsafe(console.go))
        while not console.client.closed:
            self._loop.run_once()
            self._hand_over(console)

    def _read(self) -> None:
        data = os.read(self._input, 65_536)
        *lines, self._rest = (self._rest + self._decoder.decode(data, final=not data)).split("\n")
        self._lines.extend(lines)
        if not data:
            self._lines.append(self._rest)
            self._at_end = True
            with contextlib.suppress(KeyError):
                self._loop.remove(self._input)

    def _hand_over(self, console: Console) -> None:
        while self._lines and console.client.registered and not console.leaving:
            is_command = self._lines[0].lstrip().startswith("/")
            # What a command does is done before what comes after it, and after what was said before it.
            if (is_command or self._after_command) and console.client.pending:
                break
            self._after_command = is_command
            enter(console, self._lines.popleft())
        done = console.leaving or (self._at_end and not self._lines and not console.client.files.busy)
        if done and console.client.registered and not console.client.pending:
            console.go()
