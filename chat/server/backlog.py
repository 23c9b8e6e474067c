"""Backlog: what a connection that is not at the head of its logs has still to be sent.

Answers first, then what its logs have, then pieces of files. A connection that does not drain costs its cursors, the
rest of the one line it is in the middle of, and the answers to its own requests, which `direct_bytes` lets the server
bound.
"""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import NamedTuple

from chat.protocol.messages import Gap
from chat.protocol.wire import encode
from chat.server.log import Log

#: Most bytes taken from one log for one send: about what an empty socket buffer takes at once.
BATCH_BYTES = 65_536
#: About how much of files goes into one send: what talk has to wait for if it comes a moment later.
BULK_BYTES = 16_384


class Pieces:
    """The lines of one file that wait to be sent, in order. Their owner takes back those that nobody needs any more."""

    __slots__ = ("_ends", "_lines", "size")

    def __init__(self) -> None:
        #: How many bytes the lines have.
        self.size = 0
        self._lines: deque[bytes] = deque()
        #: At which offset of the file each of them ends.
        self._ends: deque[int] = deque()

    def __repr__(self) -> str:
        return f"<Pieces {self.size} B>"

    def append(self, line: bytes, end: int) -> None:
        """One more, with the file's bytes up to this offset."""
        self._lines.append(line)
        self._ends.append(end)
        self.size += len(line)

    def take_back(self, offset: int | None = None) -> None:
        """Those that end at this offset or before it; None: all."""
        while self._ends and (offset is None or self._ends[0] <= offset):
            self.drop(1)

    def first(self, most_bytes: int) -> list[bytes]:
        """As many as fit, but at least one."""
        size, count = 0, 0
        for line in self._lines:
            size += len(line)
            if count and size > most_bytes:
                break
            count += 1
        return [*islice(self._lines, count)]

    def drop(self, count: int) -> None:
        """So many have been sent, or are not needed."""
        for _ in range(count):
            self.size -= len(self._lines.popleft())
            self._ends.popleft()


class Part(NamedTuple):
    """One piece of a send: direct lines (no log), lines of a log and the cursor after them, or so many of a file."""

    log: Log | Pieces | None
    data: bytes
    cursor: int


def joined(parts: Sequence[Part]) -> bytes:
    """What they have; of a single one the very same bytes."""
    return parts[0].data if len(parts) == 1 else b"".join([part.data for part in parts])


class Backlog:
    """Direct lines first, then what is new in each followed log, then a little of the files.

    Args:
        cursors: the logs that are followed, and how far; kept up to date here.
    """

    __slots__ = ("_cursors", "_direct", "_files", "_latest", "direct_bytes", "skipped")

    def __init__(self, cursors: dict[Log, int]) -> None:
        self.direct_bytes = 0
        #: Lines that a follower was too slow for: they left their log before it took them.
        self.skipped = 0
        self._direct: list[bytes] = []
        #: Lines that replace each other until they are sent, by what they are about.
        self._latest: dict[Hashable, bytes] | None = None
        #: Whose pieces wait until there is nothing else to be sent; the first is the next.
        self._files: dict[Pieces, None] | None = None
        self._cursors = cursors

    def __repr__(self) -> str:
        return f"<Backlog {self.direct_bytes} B direct, {self.bulk_bytes} B of files>"

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._direct or self._latest or self.bulk_bytes) or any(
            cursor < log.last_seq for log, cursor in self._cursors.items()
        )

    @property
    def bulk_bytes(self) -> int:
        """How much of files waits."""
        return sum(pieces.size for pieces in self._files) if self._files else 0

    def enqueue(self, line: bytes) -> None:
        """A line for this connection alone."""
        self._direct.append(line)
        self.direct_bytes += len(line)

    def enqueue_latest(self, about: Hashable, line: bytes) -> None:
        """A line for this connection alone, instead of the last one about the same, if that has not been sent."""
        self.take_back(about)
        if self._latest is None:
            self._latest = {}
        self._latest[about] = line

    def take_back(self, about: Hashable) -> None:
        """The last line about this is not needed any more, if it has not been sent."""
        if self._latest is not None:
            self._latest.pop(about, None)

    def enqueue_behind(self, pieces: Pieces) -> None:
        """Send what this file has, and will have, behind everything else."""
        if self._files is None:
            self._files = {}
        self._files[pieces] = None

    def leave_file(self, pieces: Pieces) -> None:
        """Send no more of it."""
        if self._files is not None:
            self._files.pop(pieces, None)

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
        self._latest = self._files = None

    def send(self, send: Callable[[bytes], int]) -> int:
        """Send what is next; return how many bytes are on their way.

        Args:
            send: takes bytes and returns how many of them are on their way.
        """
        # Kept no longer than this: a crowd that is behind, each elsewhere, would hold a batch for each of them.
        parts = [part for part in map(self._new_part, self._cursors) if part is not None]
        if self._latest:
            for line in self._latest.values():
                self.enqueue(line)
            self._latest = None
        if self._direct:
            parts.insert(0, Part(None, b"".join(self._direct), 0))
        if self._files and (part := self._some_of_a_file(self._files)) is not None:
            parts.append(part)
        if not parts:
            return 0
        count = send(joined(parts))
        self.sent(parts, count)
        return count

    def sent(self, parts: list[Part], count: int) -> None:
        """So many bytes of these, all of which were next, are on their way."""
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
                log.drop(cursor)

    def _sent_in_part(self, log: Log | Pieces | None, data: bytes, count: int) -> None:
        """Lines that were not begun stay where they were. Of one that was begun the rest is kept: it must follow next,
        whatever happens to its log in the meantime.
        """
        if log is None:
            self._set_direct(data[count:])
        elif count:
            end = data.index(b"\n", count - 1) + 1
            lines = data.count(b"\n", 0, end)
            if isinstance(log, Log):
                self._cursors[log] += lines
            else:
                log.drop(lines)
            self._set_direct(data[count:end])

    def _set_direct(self, rest: bytes) -> None:
        self._direct = [rest] if rest else []
        self.direct_bytes = len(rest)

    def _some_of_a_file(self, files: dict[Pieces, None]) -> Part | None:
        """Of each in its turn; one that has nothing more is forgotten until it has."""
        while files:
            pieces = next(iter(files))
            del files[pieces]
            if lines := pieces.first(BULK_BYTES):
                files[pieces] = None
                return Part(pieces, b"".join(lines), len(lines))
        return None

    def _announce_missed(self, log: Log, cursor: int) -> int:
        missed = log.missed(cursor)
        if missed:
            self.enqueue(encode(Gap(log.name, missed)))
        return missed

    def _new_part(self, log: Log) -> Part | None:
        cursor = self._cursors[log]
        if cursor == log.last_seq:
            return None
        if missed := self._announce_missed(log, cursor):
            self.skipped += missed
            cursor = self._cursors[log] = cursor + missed
        batch = log.read(cursor, BATCH_BYTES)
        return Part(log, *batch) if batch.data else None
