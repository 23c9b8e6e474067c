"""What is known of a file on its way: at its sender, at its receiver, and under which name it may be stored. Pure.

The receiver's word counts: it has everything before an offset, and says so for each chunk. Whatever happens to the
connections in between, the sender goes on from there, and the receiver takes only what follows on what it has.
"""

import unicodedata
from collections import deque
from typing import NamedTuple

from chat.client.files.delaywindow import DelayWindow
from chat.protocol.filemessages import FileChunk, FileCredit

#: Bytes in a chunk: 5 ms of a link of 9 Mbit/s, which is what talk may have to wait for.
CHUNK_BYTES = 4_096
#: Longest name of a stored file, in bytes of UTF-8: file systems take 255, and a number may be added.
NAME_BYTES = 200
#: Names that mean devices to Windows, whatever their extension.
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
_DEVICES |= {f"{port}{digit}" for port in ("COM", "LPT") for digit in "123456789¹²³"}


class _Piece(NamedTuple):
    """A chunk on its way: where it ends, and when it went out for the first time; None: not for the first time."""

    end: int
    sent_ns: int | None


class Outgoing:
    """The sender's side, once the file is accepted.

    Attributes:
        confirmed: the receiver has everything before this offset.
        sent: we have sent everything before this offset.
        resent_bytes: what was sent more than once.
    """

    def __init__(self, size: int, window_bytes: int) -> None:
        self.size = size
        self.confirmed = self.sent = self.resent_bytes = 0
        #: The receiver has said where it begins, or that word may be lost.
        self.started = False
        self._window = DelayWindow(CHUNK_BYTES, window_bytes)
        self._under_way: deque[_Piece] = deque()
        self._highest = 0

    def __repr__(self) -> str:
        return f"<Outgoing {self.confirmed}/{self.size} B, {self._window!r}>"

    def credit(self, credit: FileCredit, now_ns: int) -> None:
        """The receiver says how far it is."""
        offset = min(credit.offset, self.size)
        if credit.again:
            self.confirmed = offset
            self._highest = max(self._highest, offset)
            self.rewind()
        elif self.confirmed < offset:
            before, under_way = self.confirmed, self.sent - self.confirmed
            self.confirmed = offset
            # More than we have sent again: it had arrived before the connection broke.
            self.sent = max(self.sent, offset)
            self._highest = max(self._highest, offset)
            sent_ns = None
            while self._under_way and self._under_way[0].end <= offset:
                sent_ns = self._under_way.popleft().sent_ns
            if sent_ns is None:
                self._window.confirmed_again(offset - before)
            else:
                self._window.confirmed(offset - before, under_way, now_ns - sent_ns, now_ns)

    def rewind(self) -> None:
        """What is under way may be lost: go on from what is confirmed, over another connection.

        So may be the receiver's word where it begins; the server knows it, and answers with it what it has passed on.
        """
        self.started = True
        self.sent = self.confirmed
        self._under_way.clear()
        self._window.restart()

    def next_piece(self, now_ns: int) -> tuple[int, int] | None:
        """Offset and length of what may be sent now, which then counts as sent; None: nothing."""
        length = min(CHUNK_BYTES, self.size - self.sent)
        if not self.started or not length or self.sent + length - self.confirmed > self._window.size_bytes:
            return None
        offset, self.sent = self.sent, self.sent + length
        is_new = offset >= self._highest
        self.resent_bytes += max(0, min(self._highest, self.sent) - offset)
        self._highest = max(self._highest, self.sent)
        self._under_way.append(_Piece(self.sent, now_ns if is_new else None))
        return offset, length


class Incoming:
    """The receiver's side, once it has accepted.

    Args:
        file: number of the transfer.
        size: bytes in the file.
        have: how many of them are there already.
    """

    def __init__(self, file: int, size: int, have: int) -> None:
        self.have = have
        self._file = file
        self._size = size
        self._asked_again = False

    def __repr__(self) -> str:
        return f"<Incoming {self.have}/{self._size} B>"

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return self.have >= self._size

    def begin(self) -> FileCredit:
        """Ask for everything from here on: at the beginning, and over each new connection."""
        self._asked_again = True
        return FileCredit(self._file, self.have, again=True)

    def chunk(self, chunk: FileChunk) -> tuple[bytes, FileCredit | None]:
        """What is to be appended to the file, and what is to be answered after that."""
        new = chunk.data[max(0, self.have - chunk.offset) :][: self._size - self.have]
        if chunk.offset > self.have:
            # Something before it is lost. Ask once: more of what comes after the gap is on its way.
            return b"", None if self._asked_again else self.begin()
        if new:
            self._asked_again = False
            self.have += len(new)
        return new, FileCredit(self._file, self.have)


def safe_name(name: str) -> str:
    """A name that means a plain file in the folder where it is stored, on any system, and shows as what it is."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    name = "".join([char if char.isprintable() and char not in '<>:"|?*' else "_" for char in name])
    name = name.strip(" .") or "file"
    if name.partition(".")[0].strip().upper() in _DEVICES:
        name = f"_{name}"
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > NAME_BYTES // 4:
        return _shortened(name, NAME_BYTES)
    ending = dot + extension
    return _shortened(stem, NAME_BYTES - len(ending.encode())) + ending


def numbered(name: str, number: int) -> str:
    """The name for when so many files have it already: `name (1).txt`."""
    stem, dot, extension = name.rpartition(".")
    if number == 0:
        return name
    return f"{stem} ({number}){dot}{extension}" if stem else f"{name} ({number})"


def _shortened(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore").rstrip(" .") or "file"
