"""Programs on a pseudo-terminal, as a person sees them."""

import os
import pty
import select
import subprocess
import sys
import termios
import time

import pyte
from chat_helpers import SECOND, ServerProcess


class Terminal:
    """A pseudo-terminal of 100 columns and 24 lines, and the command that runs on it."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        environment = {**os.environ, "TERM": "xterm"}
        # Whoever runs the tests by `nohup` has that signal ignored; a person has not.
        command = ("env", "--default-signal=HUP", *command)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, process_group=0
        )
        os.close(slave)
        self.screen = ""
        #: Whether it was left so that keys are handed over one by one, and not shown.
        self.is_raw = False
        #: What a person sees.
        self.display = pyte.Screen(100, 24)
        self._emulator = pyte.Stream(self.display)

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def until(self, text: str, after: str = "") -> None:
        """Read until this has been shown; `after`: after this, which has been shown before."""
        deadline = time.monotonic() + 10 * SECOND
        while text not in self.screen.rpartition(after or "\0")[2]:
            assert select.select([self._master], [], [], max(0, deadline - time.monotonic()))[0], self.screen
            self._read()

    def until_shown(self, text: str) -> None:
        """Read until this stands on the screen, as a person sees it: what is redrawn is sent in pieces."""
        deadline = time.monotonic() + 10 * SECOND
        while not any(text in line for line in self.display.display):
            left_s = max(0, deadline - time.monotonic())
            assert select.select([self._master], [], [], left_s)[0], "\n".join(self.display.display)
            self._read()

    def _read(self) -> None:
        """Take in what is shown, and say where the cursor is whenever that is asked (CPR)."""
        data = os.read(self._master, 65_536).decode(errors="replace")
        self.screen += data
        before, *others = data.split("\x1b[6n")
        self._emulator.feed(before)
        for after in others:
            cursor = self.display.cursor
            self.type(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")
            self._emulator.feed(after)

    def hang_up(self) -> None:
        """The terminal is gone, and no signal says so."""
        os.close(self._master)

    def end(self) -> int:
        """Its exit code, once it has ended."""
        while True:
            try:
                self._read()
            except OSError:  # the other side is closed
                self.is_raw = not termios.tcgetattr(self._master)[3] & termios.ICANON
                os.close(self._master)
                return self.process.wait(10 * SECOND)


class TerminalClient(Terminal):
    """`chat-client` on a pseudo-terminal, at its prompt."""

    def __init__(self, nick: str, server: ServerProcess, *options: str) -> None:
        super().__init__(sys.executable, "-m", "chat", "connect", nick, "--port", str(server.address[1]), *options)
        self.until(">")
