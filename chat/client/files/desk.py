"""FileDesk: a client's files, those it sends and those it receives: disk ↔ chunks and credits ↔ one of its connections.

Files take the client's last connection that is up: in the modes with two, talk has the first one to itself. When that
connection goes, both sides go on from the last confirmed byte over the next.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from chat.client import events
from chat.client.connection import Connection
from chat.client.files.downloads import Part, Source
from chat.client.files.states import Incoming
from chat.client.files.transfers import File, IncomingFile, OutgoingFile
from chat.net.loop import Loop
from chat.net.transport import Transport
from chat.protocol.errors import ChatError, FileError, NotRegistered, PeerError, TooLong, TooMuchUnderWay
from chat.protocol.fields import Outcome
from chat.protocol.filemessages import (
    FileAccept,
    FileAccepted,
    FileChunk,
    FileCredit,
    FileEnd,
    FileEnded,
    FileOffer,
    FileOffered,
)
from chat.protocol.limits import Limits
from chat.protocol.message import Message
from chat.words import visible

#: Most files that may be offered to us at once; a server of ours lets eight through.
MAX_OFFERS = 64
#: How long an offer may go unanswered; either side calls it off.
OFFER_S = 300.0
NO_ANSWER = "Nobody answered the offer."
#: How long an accepted file may make no progress: longer than the server keeps a session without connections.
STALL_S = 60.0
#: How long the receiver's first word, which may be lost with a connection, is waited for.
BEGIN_S = 2.0
#: How often progress is told.
PROGRESS_NS = 200_000_000


class Host(Protocol):
    """What the desk needs of its client."""

    @property
    def limits(self) -> Limits:
        """What the server accepts."""

    def request(self, message_of: Callable[[int], Message]) -> int:
        """Send this message, made of its id, as surely as talk; return the id."""

    def file_connection(self) -> Connection | None:
        """The connection that files take just now."""


class FileDesk:
    """Every method that a program calls takes the number that the events have as `id`."""

    def __init__(self, loop: Loop, host: Host, on_event: Callable[[events.Event], None]) -> None:
        self._loop = loop
        self._host = host
        self._on_event = on_event
        self._last_id = 0
        self._files: dict[int, File] = {}
        self._by_number: dict[int, File] = {}
        #: Our last words on transfers, under way: a refusal says that the other side was faster, which is no news.
        self._last_words: set[int] = set()
        #: The connection in use, to see when it is another one.
        self._transport: Transport | None = None

    def __repr__(self) -> str:
        return f"<FileDesk {len(self._files)} file(s)>"

    @property
    def busy(self) -> bool:
        """Whether any file is on its way, or offered by us."""
        return any(not isinstance(file, IncomingFile) or file.part is not None for file in self._files.values())

    # What the program asks for.

    def send(self, nick: str, path: str | Path) -> int:
        """Offer a file to somebody, and send it if they accept; return its number.

        Its checksum is part of the offer, so that the other side can go on with what it has of it. It is made in
        slices: the loop goes on meanwhile.

        Raises:
            FileError: it cannot be read.
        """
        file = OutgoingFile(self._next_id(), nick, Source(Path(path)), self._host.limits.file_window_bytes)
        self._files[file.id] = file
        self._later(file, 0, partial(self._hash_source, file))
        return file.id

    def accept(self, number: int, folder: str | Path) -> None:
        """Receive a file that was offered, into this folder.

        Raises:
            FileError: there is no such offer, or nothing can be stored in this folder.
        """
        file = self._files.get(number)
        if not isinstance(file, IncomingFile) or file.part is not None:
            raise FileError(f"There is no offer {number}.")
        file.part = Part(Path(folder), file.sha256, file.size)
        self._later(file, 0, partial(self._hash_part, file))

    def cancel(self, number: int, reason: str = "") -> None:
        """Call a transfer off, whichever side we are on. That is also how an offer is rejected.

        Raises:
            FileError: there is no such transfer.
        """
        file = self._files.get(number)
        if file is None:
            raise FileError(f"There is no transfer {number}.")
        offered = isinstance(file, IncomingFile) and file.part is None
        self._later(file, 0, partial(self._fail, file, "rejected" if offered else "cancelled", reason))

    # What the client tells us.

    def news(self, message: FileOffered | FileAccepted | FileEnded, own: bool) -> None:
        """A line about a file came from the inbox. `own`: it answers a request of ours."""
        if own and message.id is not None:
            self._last_words.discard(message.id)
        if isinstance(message, FileOffered):
            self._offered(message, own)
        elif (file := self._by_number.get(message.file)) is not None:
            if isinstance(message, FileEnded):
                self._ended(file, message)
            elif not file.accepted_ns:
                self._accepted(file)

    def refused(self, refusal: events.Refused) -> bool:
        """The server refused a request; whether it was one about a file."""
        if refusal.id in self._last_words:
            self._last_words.remove(refusal.id)
            return True
        for file in [*self._files.values()]:
            if refusal.id is not None and file.request == refusal.id:
                self._forget(file, keep=True)
                self._on_event(file.describe(events.FileFailed, "failed", refusal.reason))
                return True
        return False

    def flow(self, message: FileChunk | FileCredit, now_ns: int) -> None:
        """A chunk or a credit came, now."""
        file = self._by_number.get(message.file)
        if isinstance(file, IncomingFile) and isinstance(message, FileChunk) and file.flow is not None:
            self._take(file, file.flow, message)
        elif isinstance(file, OutgoingFile) and isinstance(message, FileCredit):
            file.flow.credit(message, now_ns)
            self._progress(file)
            self._pump(file)

    def connections_changed(self) -> None:
        """A connection came or went."""
        connection = self._host.file_connection()
        transport = connection.transport if connection is not None else None
        if transport is self._transport:
            return
        self._transport = transport
        for file in [*self._files.values()]:
            if isinstance(file, OutgoingFile):
                self._go_on(file)
            elif isinstance(file, IncomingFile) and file.flow is not None and connection is not None:
                connection.pass_on(file.flow.begin())

    def on_writable(self) -> None:
        """A connection can take more."""
        for file in [*self._files.values()]:
            if isinstance(file, OutgoingFile):
                self._pump(file)

    def fail_all(self, reason: str) -> None:
        """The session is over, and all transfers with it."""
        for file in [*self._files.values()]:
            self._forget(file, keep=True)
            self._on_event(file.describe(events.FileFailed, "failed", reason))

    # The sender's side.

    def _hash_source(self, file: OutgoingFile) -> None:
        try:
            complete = file.source.hash_some()
            if complete:
                file.sha256 = file.source.sha256
                file.request = self._host.request(
                    lambda number: FileOffer(file.peer, file.name, file.size, file.sha256, number)
                )
        except ChatError as error:
            self._fail(file, "failed", str(error))
            return
        no_answer = partial(self._fail, file, "cancelled", NO_ANSWER)
        self._later(file, *((OFFER_S, no_answer) if complete else (0, partial(self._hash_source, file))))

    def _go_on(self, file: OutgoingFile) -> None:
        """From what is confirmed, if it is accepted."""
        if file.accepted_ns or file.flow.started:
            file.flow.rewind()
            self._pump(file)

    def _begin(self, file: OutgoingFile) -> None:
        if file.id in self._files and not file.flow.started:
            self._go_on(file)

    def _pump(self, file: OutgoingFile) -> None:
        connection = self._host.file_connection()
        while (
            connection is not None and not connection.backlog and (piece := file.flow.next_piece(self._loop.now_ns()))
        ):
            try:
                data = file.source.read(*piece)
            except FileError as error:
                self._fail(file, "failed", str(error))
                return
            connection.pass_on(FileChunk(file.file, piece[0], data))

    # The receiver's side.

    def _hash_part(self, file: IncomingFile) -> None:
        assert file.part is not None
        try:
            if file.part.hash_some():
                file.request = self._host.request(lambda number: FileAccept(file.file, number))
                self._watch(file)
            else:
                self._later(file, 0, partial(self._hash_part, file))
        except ChatError as error:
            self._fail(file, "failed", str(error), keep=True)

    def _take(self, file: IncomingFile, flow: Incoming, chunk: FileChunk) -> None:
        data, credit = flow.chunk(chunk)
        try:
            if data:
                assert file.part is not None
                file.part.append(data)
        except FileError as error:
            self._fail(file, "failed", str(error))
            return
        connection = self._host.file_connection()
        if credit is not None and connection is not None:
            connection.pass_on(credit)
        if data:
            self._progress(file)
        self._finish_if_complete(file)

    def _finish_if_complete(self, file: IncomingFile) -> None:
        if file.path is not None or file.flow is None or file.part is None or not file.flow.complete:
            return
        try:
            file.path = file.part.finish(file.name)
        except FileError as error:
            self._fail(file, "failed", str(error))
            return
        self._forget(file, keep=True)
        self._end(file.file, "done", "")
        self._done(file, 0, file.kept_bytes)

    # What both sides have in common.

    def _offered(self, message: FileOffered, own: bool) -> None:
        if own:
            file = next((file for file in self._files.values() if file.request == message.id), None)
            if file is None:
                # Called off while the offer was on its way.
                self._end(message.file, "cancelled", "")
                return
        else:
            if message.file in self._by_number:
                raise PeerError("it gives two transfers the same number")
            if sum(isinstance(each, IncomingFile) for each in self._files.values()) >= MAX_OFFERS:
                raise PeerError(f"it offers more than {MAX_OFFERS} files at once")
            file = IncomingFile(self._next_id(), message.from_, message.name, message.size)
            file.sha256 = message.sha256
            self._files[file.id] = file
            self._later(file, OFFER_S, partial(self._fail, file, "cancelled", NO_ANSWER))
        file.file, file.request = message.file, 0
        self._by_number[message.file] = file
        self._on_event(file.describe(events.FileOffered))

    def _accepted(self, file: File) -> None:
        file.request = 0
        file.accepted_ns = file.told_ns = self._loop.now_ns()
        self._watch(file)
        if isinstance(file, IncomingFile) and file.part is not None:
            file.flow = Incoming(file.file, file.size, file.part.have)
            file.kept_bytes = file.part.have
            if (connection := self._host.file_connection()) is not None:
                connection.pass_on(file.flow.begin())
            self._finish_if_complete(file)
        elif isinstance(file, OutgoingFile):
            self._loop.call_later(BEGIN_S, partial(self._begin, file))

    def _ended(self, file: File, message: FileEnded) -> None:
        self._forget(file, keep=message.outcome == "failed")
        if message.outcome == "done" and isinstance(file, OutgoingFile):
            self._done(file, file.flow.resent_bytes, 0)
        else:
            # Only the receiver can say `done`: if we are that, it was not us.
            outcome = "failed" if message.outcome == "done" else message.outcome
            self._on_event(file.describe(events.FileFailed, outcome, message.reason))

    def _done(self, file: File, resent_bytes: int, kept_bytes: int) -> None:
        path = str(file.path) if isinstance(file, IncomingFile) else None
        duration_ns = self._loop.now_ns() - file.accepted_ns
        self._on_event(file.describe(events.FileDone, path, duration_ns, kept_bytes, resent_bytes))

    def _fail(self, file: File, outcome: Outcome, reason: str, *, keep: bool = False) -> None:
        """We end it."""
        self._forget(file, keep=keep)
        if file.file:
            self._end(file.file, outcome, reason)
        self._on_event(file.describe(events.FileFailed, outcome, reason))

    def _end(self, number: int, outcome: Outcome, reason: str) -> None:
        # Then the server has ended it; or it takes no lines that are long enough to be told.
        with contextlib.suppress(NotRegistered, TooLong):
            try:
                end = self._host.request(lambda request: FileEnd(number, outcome, visible(reason)[:200], request))
                self._last_words.add(end)
            except TooMuchUnderWay:
                self._loop.call_later(1, partial(self._end, number, outcome, reason))

    def _forget(self, file: File, *, keep: bool) -> None:
        file.close(keep=keep)
        del self._files[file.id]
        self._by_number.pop(file.file, None)

    def _progress(self, file: File) -> None:
        now_ns = self._loop.now_ns()
        if now_ns - file.told_ns >= PROGRESS_NS:
            file.told_ns = now_ns
            self._on_event(file.describe(events.FileProgress, file.done_bytes))

    def _watch(self, file: File) -> None:
        """Give up a transfer that makes no progress."""
        done_bytes = file.done_bytes

        def check() -> None:
            if file.done_bytes == done_bytes:
                self._fail(file, "failed", f"Nothing has moved for {STALL_S:g} s.", keep=True)
            else:
                self._watch(file)

        self._later(file, STALL_S, check)

    def _later(self, file: File, delay_s: float, callback: Callable[[], None]) -> None:
        if file.timer is not None:
            file.timer.cancel()
        file.timer = self._loop.call_later(delay_s, callback)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id
