"""Outbox: what one connection has still to be sent: answers, then what its logs have, then pieces of files.

A connection that does not drain costs its cursors, the rest of the one line it is in the middle of, and the answers to
its own requests, which :attr:`Outbox.full` lets the server bound.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from chat.protocol.messages import Gap
from chat.protocol.wire import encode
from chat.server.log import Log

#: Most bytes taken from one log for one send: about what an empty socket buffer takes at once.
BATCH_BYTES = 65_536
#: About how much of files goes into one send: what talk has to wait for if it comes a moment later.
BULK_BYTES = 16_384
#: Direct lines beyond this mean that the peer asks and does not read the answers.
FULL_BYTES = 65_536


class _Part(NamedTuple):
    """One piece of a batch: direct lines (no log), lines of a log and the cursor after them, or so many of files."""

    log: Log | deque[bytes] | None
    data: bytes
    cursor: int


class Outbox:
    """Direct lines first, then what is new in each followed log, then a little of the files.

    The owner calls :meth:`take`, sends what it got, and reports with :meth:`sent` how much of it went out.
    """

    __slots__ = ("_bulk", "_cursors", "_direct", "_parts", "bulk_bytes", "direct_bytes", "skipped")

    def __init__(self) -> None:
        self.direct_bytes = 0
        #: Lines of files that wait until there is nothing else to be sent.
        self.bulk_bytes = 0
        #: Lines that a follower was too slow for: they left their log before it took them.
        self.skipped = 0
        self._direct: list[bytes] = []
        self._bulk: deque[bytes] = deque()
        self._cursors: dict[Log, int] = {}
        self._parts: list[_Part] = []

    def __repr__(self) -> str:
        cursors = ", ".join(f"{log.name} {cursor}/{log.last_seq}" for log, cursor in self._cursors.items())
        return f"<Outbox {self.direct_bytes} B direct{', ' if cursors else ''}{cursors}>"

    @property
    def full(self) -> bool:
        """Whether the peer should be read no further until it has read its answers."""
        return self.direct_bytes > FULL_BYTES

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._direct or self._bulk) or any(cursor < log.last_seq for log, cursor in self._cursors.items())

    @property
    def logs(self) -> Iterable[Log]:
        """The logs that are followed; none if this connection only stands by."""
        return self._cursors.keys()

    def tell(self, line: bytes) -> None:
        """Queue a line for this connection alone."""
        self._direct.append(line)
        self.direct_bytes += len(line)

    def tell_later(self, line: bytes) -> None:
        """Queue a line for this connection alone, behind everything else."""
        self._bulk.append(line)
        self.bulk_bytes += len(line)

    def follow(self, log: Log, cursor: int) -> None:
        """Send this log's lines after the cursor, from now on; say so if some of them are gone already."""
        self._cursors[log] = cursor + self._announce_missed(log, cursor)

    def unfollow(self) -> None:
        """Send no more lines of any log, except the rest of one that was begun."""
        self._cursors.clear()

    def leave(self, log: Log) -> None:
        """Follow this log no more; what it holds now, at most a batch, is still sent."""
        if log in self._cursors and (part := self._new_part(log)) is not None:
            self.tell(part.data)
        self._cursors.pop(log, None)

    def finish(self, line: bytes = b"") -> None:
        """Follow nothing any more: what the logs hold now, at most a batch of each, and then this line is the end."""
        for part in self._new_lines():
            self.tell(part.data)
        self._cursors.clear()
        self._drop_bulk(len(self._bulk))
        if line:
            self.tell(line)

    def take(self) -> bytes:
        """What to send next; empty if there is nothing. Followers at the same cursor get the same object."""
        self._parts = parts = self._new_lines()
        if self._direct:
            parts.insert(0, _Part(None, b"".join(self._direct), 0))
        if self._bulk:
            parts.append(self._some_bulk())
        return parts[0].data if len(parts) == 1 else b"".join([part.data for part in parts])

    def sent(self, count: int) -> None:
        """So many bytes of the last :meth:`take` are on their way.

        Lines that were not begun go back to their log. Of a line that was begun the rest is kept: it must follow next,
        whatever happens to the log in the meantime.
        """
        # Not kept until the next send: a crowd that is behind, each elsewhere, would hold a batch for each of them.
        parts, self._parts = self._parts, []
        for log, data, cursor in parts:
            if count < len(data):
                self._sent_in_part(log, data, count)
                return
            count -= len(data)
            if log is None:
                self._set_direct(b"")
            elif log is self._bulk:
                self._drop_bulk(cursor)
            else:
                assert isinstance(log, Log)
                self._cursors[log] = cursor

    def _sent_in_part(self, log: Log | deque[bytes] | None, data: bytes, count: int) -> None:
        if log is None:
            self._set_direct(data[count:])
        elif count:
            end = data.index(b"\n", count - 1) + 1
            if isinstance(log, Log):
                self._cursors[log] += data.count(b"\n", 0, end)
            else:
                self._drop_bulk(data.count(b"\n", 0, end))
            self._set_direct(data[count:end])

    def _set_direct(self, rest: bytes) -> None:
        self._direct = [rest] if rest else []
        self.direct_bytes = len(rest)

    def _some_bulk(self) -> _Part:
        lines: list[bytes] = []
        size = 0
        for line in self._bulk:
            size += len(line)
            if lines and size > BULK_BYTES:
                break
            lines.append(line)
        return _Part(self._bulk, b"".join(lines), len(lines))

    def _drop_bulk(self, count: int) -> None:
        for _ in range(count):
            self.bulk_bytes -= len(self._bulk.popleft())

    def _announce_missed(self, log: Log, cursor: int) -> int:
        missed = log.missed(cursor)
        if missed:
            self.tell(encode(Gap(log.name, missed)))
        return missed

    def _new_lines(self) -> list[_Part]:
        return [part for part in map(self._new_part, self._cursors) if part is not None]

    def _new_part(self, log: Log) -> _Part | None:
        cursor = self._cursors[log]
        if cursor == log.last_seq:
            return None
        if missed := self._announce_missed(log, cursor):
            self.skipped += missed
            cursor = self._cursors[log] = cursor + missed
        batch = log.read(cursor, BATCH_BYTES)
        return _Part(log, *batch) if batch.data else None
