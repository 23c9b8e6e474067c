"""Members of the lobby as benchmarks want them: a socket that says lines and counts what it hears, and no more."""

import ssl
import sys
import time
from collections.abc import Callable

from chat.net.loop import Loop
from chat.net.tls import Tls
from chat.net.transport import Address, Transport, resolve
from chat.protocol.messages import Hello, Say
from chat.protocol.wire import encode

PATIENCE_S = 30.0


class Member:
    """One connection, under the name member NUMBER; each of its messages begins with a number of its own, from 1.

    Args:
        on_lines: called with the member and one or more whole lines.
    """

    def __init__(
        self,
        loop: Loop,
        address: Address,
        number: int,
        on_lines: Callable[["Member", bytes], None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.number = number
        self.welcome = False
        self.said = 0
        self._on_lines = on_lines
        self._rest = b""
        self.transport = Transport.connect(
            loop,
            resolve(*address),
            on_data=self._read,
            on_writable=lambda: self._send(encode(Hello(f"member{number}"))),
            on_lost=lambda reason: sys.exit(f"bench: member{number} lost its connection: {reason}"),
            tls=None if context is None else Tls(context, address[0]),
        )

    def say(self, count: int, filler: str) -> None:
        """So many messages, in one go."""
        lines = [encode(Say(f"{number} {filler}", number)) for number in range(self.said + 1, self.said + count + 1)]
        self.said += count
        self._send(b"".join(lines))

    def _send(self, data: bytes) -> None:
        if self.transport.send(data) != len(data):
            sys.exit("bench: the kernel did not take all that was to be said")

    def _read(self, data: bytes) -> None:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        self.welcome = self.welcome or b'"type":"welcome"' in data
        if end:
            self._on_lines(self, data[:end])


def until(loop: Loop, condition: Callable[[], bool]) -> None:
    """Run the loop until then; end the program if that does not come."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            sys.exit("bench: the server does not answer")
        loop.run_once(0.1)
