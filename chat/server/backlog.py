"""Backlog: what a connection that is not at the head of its logs has still to be sent.

Answers first, then what its logs have, then pieces of files. A connection that does not drain costs its cursors, the
rest of the one line it is in the middle of, and the answers to its own requests, which `direct_bytes` lets the server
bound.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chat.protocol.messages import Gap
from chat.protocol.wire import encode
from chat.server.log import Log

#: Most bytes taken from one log for one send: about what an empty socket buffer takes at once.
BATCH_BYTES = 65_536
#: About how much of files goes into one send: what talk has to wait for if it comes a moment later.
BULK_BYTES = 16_384


class _Part(NamedTuple):
    """One piece of a send: direct lines (no log), lines of a log and the cursor after them, or so many of files."""

    log: Log | deque[bytes] | None
    data: bytes
    cursor: int


class Backlog:
    """Direct lines first, then what is new in each followed log, then a little of the files.

    Args:
        cursors: the logs that are followed, and how far; kept up to date here.
    """

    __slots__ = ("_bulk", "_cursors", "_direct", "bulk_bytes", "direct_bytes", "skipped")

    def __init__(self, cursors: dict[Log, int]) -> None:
        self.direct_bytes = 0
        #: Lines of files that wait until there is nothing else to be sent.
        self.bulk_bytes = 0
        #: Lines that a follower was too slow for: they left their log before it took them.
        self.skipped = 0
        self._direct: list[bytes] = []
        self._bulk: deque[bytes] | None = None
        self._cursors = cursors

    def __repr__(self) -> str:
        return f"<Backlog {self.direct_bytes} B direct, {self.bulk_bytes} B of files>"

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._direct or self._bulk) or any(cursor < log.last_seq for log, cursor in self._cursors.items())

    def enqueue(self, line: bytes) -> None:
        """A line for this connection alone."""
        self._direct.append(line)
        self.direct_bytes += len(line)

    def enqueue_behind(self, line: bytes) -> None:
        """A line for this connection alone, behind everything else."""
        if self._bulk is None:
            self._bulk = deque()
        self._bulk.append(line)
        self.bulk_bytes += len(line)

    def follow(self, log: Log, cursor: int) -> None:
        """Send this log's lines after the cursor, from now on; say so if some of them are gone already."""
        self._cursors[log] = cursor + self._announce_missed(log, cursor)

    def leave(self, log: Log) -> None:
        """Follow this log no more; what it holds now, at most a batch, is still sent."""
        if (part := self._new_part(log)) is not None:
            self.enqueue(part.data)
        del self._cursors[log]

    def finish(self) -> None:
        """Follow nothing any more: what the logs hold now, at most a batch of each, is still sent."""
        for log in [*self._cursors]:
            self.leave(log)
        self._drop_bulk(len(self._bulk or ()))

    def send(self, send: Callable[[bytes], int]) -> int:
        """Send what is next; return how many bytes are on their way.

        Args:
            send: takes bytes and returns how many of them are on their way.
        """
        # Kept no longer than this: a crowd that is behind, each elsewhere, would hold a batch for each of them.
        parts = [part for part in map(self._new_part, self._cursors) if part is not None]
        if self._direct:
            parts.insert(0, _Part(None, b"".join(self._direct), 0))
        if self._bulk:
            parts.append(self._some_bulk(self._bulk))
        if not parts:
            return 0
        count = send(parts[0].data if len(parts) == 1 else b"".join([part.data for part in parts]))
        self._sent(parts, count)
        return count

    def began(self, log: Log, data: bytes, count: int) -> None:
        """So many bytes of these lines, which follow this log's cursor, are on their way, though not all of them.

        Lines that were not begun stay in their log. Of a line that was begun the rest is kept: it must follow next,
        whatever happens to the log in the meantime.
        """
        if count:
            end = data.index(b"\n", count - 1) + 1
            self._cursors[log] += data.count(b"\n", 0, end)
            self._set_direct(data[count:end])

    def _sent(self, parts: list[_Part], count: int) -> None:
        for log, data, cursor in parts:
            if count < len(data):
                self._sent_in_part(log, data, count)
                return
            count -= len(data)
            if log is None:
                self._set_direct(b"")
            elif isinstance(log, Log):
                self._cursors[log] = cursor
            else:
                self._drop_bulk(cursor)

    def _sent_in_part(self, log: Log | deque[bytes] | None, data: bytes, count: int) -> None:
        if log is None:
            self._set_direct(data[count:])
        elif isinstance(log, Log):
            self.began(log, data, count)
        elif count:
            end = data.index(b"\n", count - 1) + 1
            self._drop_bulk(data.count(b"\n", 0, end))
            self._set_direct(data[count:end])

    def _set_direct(self, rest: bytes) -> None:
        self._direct = [rest] if rest else []
        self.direct_bytes = len(rest)

    def _some_bulk(self, bulk: deque[bytes]) -> _Part:
        lines: list[bytes] = []
        size = 0
        for line in bulk:
            size += len(line)
            if lines and size > BULK_BYTES:
                break
            lines.append(line)
        return _Part(bulk, b"".join(lines), len(lines))

    def _drop_bulk(self, count: int) -> None:
        for _ in range(count):
            assert self._bulk is not None
            self.bulk_bytes -= len(self._bulk.popleft())

    def _announce_missed(self, log: Log, cursor: int) -> int:
        missed = log.missed(cursor)
        if missed:
            self.enqueue(encode(Gap(log.name, missed)))
        return missed

    def _new_part(self, log: Log) -> _Part | None:
        cursor = self._cursors[log]
        if cursor == log.last_seq:
            return None
        if missed := self._announce_missed(log, cursor):
            self.skipped += missed
            cursor = self._cursors[log] = cursor + missed
        batch = log.read(cursor, BATCH_BYTES)
        return _Part(log, *batch) if batch.data else None
