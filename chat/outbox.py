"""Outbox: what one connection has still to be sent.

A connection that does not drain costs its cursors, the rest of the one line it is in the middle of, and the answers to
its own requests, which :attr:`Outbox.full` lets the server bound.
"""

from typing import NamedTuple

from chat.log import Log
from chat.messages import Gap
from chat.wire import encode

#: Most bytes taken from one log for one send: about what an empty socket buffer takes at once.
BATCH_BYTES = 65_536
#: Direct lines beyond this mean that the peer asks and does not read the answers.
FULL_BYTES = 65_536


class _Part(NamedTuple):
    """One piece of a batch: direct lines (no log), or lines of a log and the cursor after them."""

    log: Log | None
    data: bytes
    cursor: int


class Outbox:
    """Direct lines first, then what is new in each followed log.

    The owner calls :meth:`take`, sends what it got, and reports with :meth:`sent` how much of it went out.
    """

    __slots__ = ("_cursors", "_direct", "_parts", "direct_bytes", "skipped")

    def __init__(self) -> None:
        self.direct_bytes = 0
        #: Lines that a follower was too slow for: they left their log before it took them.
        self.skipped = 0
        self._direct: list[bytes] = []
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
        return bool(self._direct) or any(cursor < log.last_seq for log, cursor in self._cursors.items())

    def tell(self, line: bytes) -> None:
        """Queue a line for this connection alone."""
        self._direct.append(line)
        self.direct_bytes += len(line)

    def follow(self, log: Log, cursor: int) -> None:
        """Send this log's lines after the cursor, from now on; say so if some of them are gone already."""
        self._cursors[log] = cursor + self._announce_missed(log, cursor)

    def unfollow(self) -> None:
        """Send no more lines of any log, except the rest of one that was begun."""
        self._cursors.clear()

    def finish(self, line: bytes = b"") -> None:
        """Follow nothing any more: what the logs hold now, at most a batch of each, and then this line is the end."""
        for part in self._new_lines():
            self.tell(part.data)
        self._cursors.clear()
        if line:
            self.tell(line)

    def take(self) -> bytes:
        """What to send next; empty if there is nothing. Followers at the same cursor get the same object."""
        self._parts = parts = self._new_lines()
        if self._direct:
            parts.insert(0, _Part(None, b"".join(self._direct), 0))
        return parts[0].data if len(parts) == 1 else b"".join([part.data for part in parts])

    def sent(self, count: int) -> None:
        """So many bytes of the last :meth:`take` are on their way.

        Lines that were not begun go back to their log. Of a line that was begun the rest is kept: it must follow next,
        whatever happens to the log in the meantime.
        """
        for log, data, cursor in self._parts:
            if count < len(data):
                self._sent_in_part(log, data, count)
                return
            count -= len(data)
            if log is None:
                self._set_direct(b"")
            else:
                self._cursors[log] = cursor

    def _sent_in_part(self, log: Log | None, data: bytes, count: int) -> None:
        if log is None:
            self._set_direct(data[count:])
        elif count:
            end = data.index(b"\n", count - 1) + 1
            self._cursors[log] += data.count(b"\n", 0, end)
            self._set_direct(data[count:end])

    def _set_direct(self, rest: bytes) -> None:
        self._direct = [rest] if rest else []
        self.direct_bytes = len(rest)

    def _announce_missed(self, log: Log, cursor: int) -> int:
        missed = log.missed(cursor)
        if missed:
            self.tell(encode(Gap(log.name, missed)))
        return missed

    def _new_lines(self) -> list[_Part]:
        parts = []
        for log, cursor in self._cursors.items():
            if cursor == log.last_seq:
                continue
            if missed := self._announce_missed(log, cursor):
                self.skipped += missed
                cursor = self._cursors[log] = cursor + missed
            batch = log.read(cursor, BATCH_BYTES)
            if batch.data:
                parts.append(_Part(log, *batch))
        return parts
