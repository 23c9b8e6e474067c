"""Log: a bounded sequence of lines, each encoded once and numbered from 1.

Whoever follows a log holds a *cursor*, the number of the last line it was given, and nothing else: no queue of its own.
Followers with the same cursor are handed the very same bytes object.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from chat.protocol.message import Message
from chat.protocol.wire import encode_all

#: How many different batches are remembered within a turn. Followers that keep up share one or two; those far behind,
#: each elsewhere, must not make us remember a batch for each of them.
MAX_BATCHES = 16
#: Most lines of a batch, and how many are looked at first: of long ones no more are needed.
MAX_BATCH_LINES, FEW_LINES = 1_024, 32

#: Makes messages of the log's name and the number that the line of the first will have.
MessagesAt = Callable[[str, int], Sequence[Message]]


class Batch(NamedTuple):
    """Some consecutive lines of a log, joined."""

    data: bytes
    #: The cursor of one who has been given them.
    cursor: int


class Log:
    """Lines `first_seq … last_seq`; older ones are dropped when there are too many or they are too big.

    The first line has the number `after + 1`.
    """

    __slots__ = (
        "_batches",
        "_bytes",
        "_dropped",
        "_lines",
        "first_seq",
        "last_seq",
        "max_bytes",
        "max_lines",
        "name",
    )

    def __init__(self, name: str, *, max_lines: int, max_bytes: int, after: int = 0) -> None:
        self.name = name
        self.first_seq = after + 1
        #: Number of the newest line; `after` before the first.
        self.last_seq = after
        self.max_lines = max_lines
        self.max_bytes = max_bytes
        self._bytes = 0
        self._lines: list[bytes] = []
        #: Lines at the front of the list that are no longer in the log; cut off when they are half of it, so that
        #: dropping a line costs amortised O(1).
        self._dropped = 0
        self._batches: dict[tuple[int, int], Batch] = {}

    def __repr__(self) -> str:
        return f"<Log {self.name} {self.first_seq}…{self.last_seq} {self._bytes} B>"

    def write(self, messages_at: MessagesAt) -> list[bytes]:
        """Add the messages made with this log's name and the next number; return their lines."""
        lines = encode_all(messages_at(self.name, self.last_seq + 1))
        self.extend(lines)
        return lines

    def extend(self, lines: Sequence[bytes]) -> None:
        """Add lines that were encoded earlier, with the numbers from `last_seq + 1`."""
        if self._batches:
            self._batches.clear()
        self._lines += lines
        self._bytes += sum(map(len, lines))
        self.last_seq += len(lines)
        if self._bytes > self.max_bytes or self.last_seq - self.first_seq >= self.max_lines:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        lines, size, dropped = self._lines, self._bytes, self._dropped
        too_many, max_bytes = len(lines) - self.max_lines, self.max_bytes
        while dropped < too_many or size > max_bytes:
            size -= len(lines[dropped])
            dropped += 1
        self.first_seq += dropped - self._dropped
        if dropped * 2 > len(lines):
            del lines[:dropped]
            dropped = 0
        self._bytes, self._dropped = size, dropped

    def let_go(self) -> None:
        """Remember no batches: there may be as many logs as somebody likes to make."""
        if self._batches:
            self._batches.clear()

    def missed(self, cursor: int) -> int:
        """How many lines after this cursor are already gone."""
        return max(0, self.first_seq - 1 - cursor)

    def bytes_after(self, cursor: int) -> int:
        """About how long the lines after it are that are still there."""
        lines = self.last_seq + 1 - self.first_seq
        return self._bytes * max(0, min(self.last_seq - cursor, lines)) // lines if lines else 0

    def tail(self, lines: int, max_bytes: int) -> list[bytes]:
        """The last so many lines, oldest first; fewer, if there are no more or `max_bytes` hold no more."""
        tail = self._lines[max(self._dropped, len(self._lines) - lines) :] if lines else []
        sizes = accumulate(len(line) for line in reversed(tail))
        kept = sum(size <= max_bytes for size in sizes)
        return tail[len(tail) - kept :]

    def read(self, cursor: int, max_bytes: int) -> Batch:
        """The lines after the cursor, oldest first: at least one if there is any, and more only within `max_bytes`.

        Lines that are gone are skipped; ask :meth:`missed` first.
        """
        key = (cursor, max_bytes)
        batch = self._batches.get(key)
        if batch is None:
            if len(self._batches) == MAX_BATCHES:
                self._batches.clear()
            batch = self._batches[key] = self._join(cursor + self.missed(cursor), max_bytes)
        return batch

    def _join(self, cursor: int, max_bytes: int) -> Batch:
        start = cursor - self.first_seq + 1 + self._dropped
        lines = self._lines[start : start + FEW_LINES]
        if len(lines) == FEW_LINES and sum(map(len, lines)) < max_bytes:
            lines = self._lines[start : start + MAX_BATCH_LINES]
        if sum(map(len, lines)) > max_bytes:
            ends = [*accumulate(map(len, lines))]
            del lines[max(1, bisect_right(ends, max_bytes)) :]
        return Batch(b"".join(lines), cursor + len(lines))
