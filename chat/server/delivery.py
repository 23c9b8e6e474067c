"""Delivery: lines go in, bytes come out. It alone knows who follows which log, and how far each has come.

A connection that has been sent everything is at the **head** of its logs: it has no queue, and its cursor is that of
all others there. At the end of a turn what is new in a log is joined once, and the same bytes are sent to everybody at
its head, which costs no more than the `send()`; who is at the heads of several such logs is sent all of them at once.

Who takes less than all of it, or is to be sent answers or pieces of files too, has a **backlog** with cursors of its
own, until it has been sent everything again. While the kernel takes nothing from a connection it is not looked at,
however its logs grow.

Some lines may **wait** for those that follow: in a crowd that comes or goes, everybody is told of each. Who has a
backlog is sent them with it, and then is ahead of the head until they have been sent to all.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Protocol

from chat.protocol.message import Message
from chat.protocol.wire import encode
from chat.server.backlog import BATCH_BYTES, Backlog, Part, Pieces, joined
from chat.server.log import Log, MessagesAt
from chat.server.members import Connection, Send, Session

#: New lines beyond this are to be sent before more is read: what a turn may hold back, and what a send takes at once.
DUE_BYTES = 65_536


class Keeper(Protocol):
    """Is told what becomes of logs, and of names: a journal."""

    def has_room(self) -> bool:
        """Whether more can be accepted, since it can be kept."""

    def keep(self, log: Log, lines: Sequence[bytes]) -> None:
        """These lines were just added to the log."""

    def keep_topic(self, log: Log, topic: str) -> None:
        """The room of this log is about something else now."""

    def forget(self, log: Log) -> None:
        """The log is there no more."""

    def keep_names(self, session: Session) -> None:
        """The names of this session, which has a key, are its own, also after a restart."""

    def free_names(self, session: Session) -> None:
        """They are free."""


class _Head:
    """The end of a log as far as it was sent, and who has been sent it up to there."""

    __slots__ = ("flushed", "members")

    def __init__(self, flushed: int) -> None:
        self.flushed = flushed
        self.members: dict[Connection, Send] = {}


class Delivery:
    """All logs that are followed and all connections that follow them.

    Args:
        keeper: is told of each line before :meth:`flush` sends it.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper
        self._heads: dict[Log, _Head] = {}
        self._grown: dict[Log, None] = {}
        #: Logs whose new lines may wait.
        self._waiting: dict[Log, None] = {}
        self._new_bytes = 0
        #: Connections with a backlog that the kernel may have room for.
        self._ready: dict[Connection, None] = {}
        #: Connections that have been sent everything, lines that wait included: ahead of the head of a log.
        self._ahead: dict[Connection, None] = {}
        #: Since the beginning: lines that were added; how often a line of a log was sent to somebody, or dropped before
        #: it was; and all bytes that were sent.
        self.lines = self.deliveries = self.skipped = self.sent_bytes = 0

    def __repr__(self) -> str:
        return f"<Delivery of {len(self._heads)} log(s)>"

    @property
    def dirty(self) -> bool:
        """Whether :meth:`flush` has something to do."""
        return bool(self._grown or self._ready)

    @property
    def due(self) -> bool:
        """Whether :meth:`flush` should not wait for the end of the turn."""
        return self._new_bytes > DUE_BYTES

    @property
    def waiting(self) -> bool:
        """Whether there are lines that wait for :meth:`hurry`."""
        return bool(self._waiting)

    # Lines go in.

    def open(self, log: Log) -> None:
        """The log may be followed from now on."""
        self._heads[log] = _Head(log.last_seq)

    def close(self, log: Log) -> None:
        """Nobody follows the log any more."""
        del self._heads[log]
        self._grown.pop(log, None)
        self._waiting.pop(log, None)
        if self._keeper is not None:
            self._keeper.forget(log)

    def append(self, log: Log, message_at: Callable[[str, int], Message], *, may_wait: bool = False) -> None:
        """Add the message made with the log's name and the next number.

        Args:
            log: where it belongs.
            message_at: makes it.
            may_wait: until the log's next line that may not, or :meth:`hurry`.
        """
        self.extend(log, lambda name, seq: [message_at(name, seq)], may_wait=may_wait)

    def extend(self, log: Log, messages_at: MessagesAt, *, may_wait: bool = False) -> None:
        """The same with several messages, the first of which has the next number."""
        lines = log.write(messages_at)
        (self._waiting if may_wait else self._grown)[log] = None
        self._new_bytes += sum(map(len, lines))
        self.lines += len(lines)
        if self._keeper is not None:
            self._keeper.keep(log, lines)

    def tell(self, connection: Connection, message: Message) -> None:
        """Send a line to this connection alone, ahead of what its logs have."""
        self._backlog(connection).enqueue(encode(message))

    def tell_latest(self, connection: Connection, about: Hashable, message: Message) -> None:
        """The same, instead of the last line about this, if that has not been sent."""
        self._backlog(connection).enqueue_latest(about, encode(message))

    def take_back(self, connection: Connection, about: Hashable) -> None:
        """The last line about this is not needed any more, if it has not been sent."""
        if connection.backlog is not None:
            connection.backlog.take_back(about)

    def tell_behind(self, connection: Connection, pieces: Pieces) -> None:
        """Send what this file has to this connection alone, when there is nothing else to be sent."""
        self._backlog(connection).enqueue_behind(pieces)

    def leave_file(self, connection: Connection, pieces: Pieces) -> None:
        """Send no more of it over this connection."""
        if connection.backlog is not None:
            connection.backlog.leave_file(pieces)

    # Who follows what.

    def follow(self, connection: Connection, log: Log, cursor: int) -> None:
        """Send the log's lines after the cursor over this connection."""
        self._backlog(connection).follow(log, cursor)

    def leave(self, connection: Connection, log: Log) -> None:
        """Send no more of it, but for what the log holds now."""
        self._backlog(connection).leave(log)

    def stand_by(self, connection: Connection) -> None:
        """Send it no more lines of any log, except the rest of one that was begun."""
        self._backlog(connection)
        connection.cursors.clear()

    def finish(self, connection: Connection, line: bytes = b"") -> None:
        """Follow nothing any more: what the logs hold now and then this line is the end."""
        backlog = self._backlog(connection)
        backlog.finish()
        if line:
            backlog.enqueue(line)
        # Even if it is blocked: the owner is to know that it is going.
        self._ready[connection] = None

    def drop(self, connection: Connection) -> None:
        """The connection is gone, with what it had still to be sent."""
        self._backlog(connection)
        connection.cursors.clear()
        connection.backlog = None
        self._ready.pop(connection, None)
        self._ahead.pop(connection, None)

    # Bytes come out.

    def hurry(self) -> None:
        """What waits is sent by the next :meth:`flush`."""
        self._grown |= self._waiting

    def on_writable(self, connection: Connection) -> None:
        """The kernel may take more from this connection."""
        if connection.backlog is not None:
            self._ready[connection] = None

    def flush(self) -> list[Connection]:
        """Send what is new to everybody who has room for it.

        Returns:
            those who want attention: they missed lines, or are closing (and have been sent everything if they have no
            backlog any more).
        """
        grown, self._grown, self._new_bytes = self._grown, {}, 0
        for log in grown:
            self._waiting.pop(log, None)
        self._send_new_lines(grown)
        ready, self._ready = self._ready, {}
        if grown:
            ready, self._ahead = self._ahead | ready, {}
        attention = [connection for connection in ready if self._send_backlog(connection)]
        for log in itertools.chain(grown, *(connection.cursors for connection in ready)):
            log.let_go()
        return attention

    def _backlog(self, connection: Connection) -> Backlog:
        """The connection's backlog; if it is at the head, it gets one, and leaves the head."""
        backlog = connection.backlog
        if backlog is None:
            for log in connection.cursors:
                head = self._heads[log]
                del head.members[connection]
                connection.cursors[log] = head.flushed
            backlog = connection.backlog = Backlog(connection.cursors)
            self._ready[connection] = None
        elif connection in self._ahead:
            del self._ahead[connection]
            self._ready[connection] = None
        return backlog

    def _send_new_lines(self, grown: Iterable[Log]) -> None:
        """A batch of each log to all who are at its head, and again as long as there is more."""
        for log in grown:
            if log.missed(self._heads[log].flushed):
                # Some fell out of the log before they could be sent: each is told so.
                for connection in [*self._heads[log].members]:
                    self._backlog(connection)
        logs = [log for log in grown if self._heads[log].flushed < log.last_seq]
        while logs:
            self._send_batches({log: self._heads[log] for log in logs})
            logs = [log for log in logs if self._heads[log].flushed < log.last_seq]

    def _send_batches(self, heads: dict[Log, _Head]) -> None:
        """One of each log to whoever follows it alone, and then all at once to each who follows several of them.

        A `send()` costs more than all else: a crowd in many rooms takes long, and who is in few does not wait for it.
        """
        parts = {log: Part(log, *log.read(head.flushed, BATCH_BYTES)) for log, head in heads.items() if head.members}
        lines = {log: part.cursor - heads[log].flushed for log, part in parts.items()}
        together = _who_follow_several(heads) if len(parts) > 1 else {}
        for log, part in parts.items():
            members = heads[log].members
            alone = {each: members[each] for each in members if each not in together} if together else members
            self._send_parts([part], lines[log], alone)
        groups: defaultdict[tuple[Log, ...], dict[Connection, Send]] = defaultdict(dict)
        for connection, followed in together.items():
            groups[tuple(followed)][connection] = heads[followed[0]].members[connection]
        for group, connections in groups.items():
            self._send_parts([parts[log] for log in group], sum(lines[log] for log in group), connections)
        for log, head in heads.items():
            head.flushed = parts[log].cursor if head.members else log.last_seq

    def _send_parts(self, parts: list[Part], lines: int, connections: Mapping[Connection, Send]) -> None:
        """So many lines to all of these, who are at the heads; who does not take all of it has a backlog then."""
        data = joined(parts)
        size, number = len(data), len(connections)
        behind = []
        for connection, raw_send in connections.items():
            try:
                count = raw_send(data)
            except OSError as error:
                connection.sink.not_sent(error)
                count = 0
            if count != size:
                behind.append((connection, count))
        self.sent_bytes += size * number
        self.deliveries += lines * (number - len(behind))
        for connection, count in behind:
            backlog = self._backlog(connection)
            before = sum(connection.cursors.values())
            backlog.sent(parts, count)
            self.sent_bytes -= size - count
            self.deliveries += sum(connection.cursors.values()) - before
            self._block(connection)

    def _send_backlog(self, connection: Connection) -> bool:
        backlog = connection.backlog
        assert backlog is not None
        before = sum(connection.cursors.values())
        self.sent_bytes += backlog.send(connection.sink.send)
        skipped, backlog.skipped = backlog.skipped, 0
        connection.skipped += skipped
        self.skipped += skipped
        self.deliveries += sum(connection.cursors.values()) - before - skipped
        if backlog.pending:
            self._block(connection)
        elif any(self._heads[log].flushed < log.last_seq for log in connection.cursors):
            self._ahead[connection] = None
        else:
            connection.backlog = None
            for log in connection.cursors:
                self._heads[log].members[connection] = connection.sink.raw_send
        return connection.closing or skipped > 0

    def _block(self, connection: Connection) -> None:
        """Nothing more is sent until :meth:`on_writable`."""
        self._ready.pop(connection, None)
        connection.sink.want_writable()


def _who_follow_several(heads: dict[Log, _Head]) -> dict[Connection, list[Log]]:
    """The connections at more than one of these heads, and at which."""
    seen: set[Connection] = set()
    together: dict[Connection, list[Log]] = {}
    for head in heads.values():
        together.update({each: [] for each in head.members if each in seen})
        seen.update(head.members)
    if together:
        for log, head in heads.items():
            for each in head.members:
                if each in together:
                    together[each].append(log)
    return together
