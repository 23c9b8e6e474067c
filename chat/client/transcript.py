"""Transcript: one CSV row for each message, own and others', written at once.

- `time_s`: when the kernel received it (the echo, for one's own), in seconds since 1970
- `kind`: `say` or `tell`
- `from`, `to`: nicknames; `to` is empty for messages to everyone
- `text_bytes`: length of the text in UTF-8
- `response_time_ms`: of one's own messages, from the intended moment to the echo; empty for others'
- `path`: the connection that brought it first, `primary` or `secondary`
- `exact`: 1 if the receive time is that of this very line, 0 if it may be somewhat late
"""

import csv
import time
from typing import TextIO

from chat.client.events import Echoed, Received

COLUMNS = ("time_s", "kind", "from", "to", "text_bytes", "response_time_ms", "path", "exact")


class Transcript:
    """Writes to an open text file, which its owner closes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.writer(file)
        self._write(COLUMNS)

    def add(self, nick: str, event: Echoed | Received) -> None:
        """Write the row of a message that the person called `nick` sent or received."""
        # A moment of the monotonic clock as a time of day.
        time_s = time.time() - (time.monotonic_ns() - event.received_ns) / 1e9
        if isinstance(event, Echoed):
            sender, response_time_ms = nick, event.response_time_ns / 1e6
        else:
            sender, response_time_ms = event.sender, None
        text_bytes = len(event.text.encode())
        self._write((time_s, event.kind, sender, event.to, text_bytes, response_time_ms, event.path, int(event.exact)))

    def _write(self, row: tuple[object, ...]) -> None:
        self._writer.writerow(row)
        self._file.flush()
