"""Shelf: the files of the interactive client: what was offered, how far it is, and what is to be done with it."""

from pathlib import Path

from chat.client.client import ChatClient
from chat.client.events import Event, FileDone, FileEvent, FileFailed, FileOffered, FileProgress
from chat.console.display import megabytes
from chat.protocol.errors import FileError
from chat.words import visible

_BAR_CHARS = 20


class Shelf:
    """The transfers that are open, by their numbers.

    Args:
        client: sends and receives them.
        folder: where received files go.
    """

    def __init__(self, client: ChatClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._open: dict[int, FileOffered] = {}
        self._done_bytes: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Shelf {len(self._open)} open>"

    @property
    def numbers(self) -> list[str]:
        """What can be accepted, rejected or cancelled."""
        return [str(file.file) for file in self._open.values()]

    def send(self, nick: str, path: str) -> None:
        """Offer a file to somebody; raises FileError."""
        self._client.files.send(nick, Path(path).expanduser())

    def accept(self, number: str = "") -> None:
        """Receive a file that was offered, by default the last one; raises FileError."""
        self._client.files.accept(self._number(number, offered=True), self._folder)

    def reject(self, number: str = "") -> None:
        """Do not want a file that was offered, by default the last one; raises FileError."""
        self._client.files.cancel(self._number(number, offered=True))

    def cancel(self, number: str = "") -> None:
        """Call off any transfer, by default the last one; raises FileError."""
        self._client.files.cancel(self._number(number, offered=False))

    def note(self, event: Event) -> str | None:
        """Take in what happens to files. A line for where there are no bars: each quarter of a file."""
        match event:
            case FileOffered(number):
                self._open[number] = event
            case FileProgress(number, done_bytes=done_bytes):
                before, self._done_bytes[number] = self._done_bytes.get(number, 0), done_bytes
                if _share(before, event, 4) != _share(done_bytes, event, 4):
                    return f"* file {event.file}: {self._bar(self._open[number], done_bytes)}"
            case FileDone(number) | FileFailed(number):
                self._open.pop(number, None)
                self._done_bytes.pop(number, None)
        return None

    def bars(self) -> str:
        """A line for each file that is on its way."""
        return "\n".join(self._bar(self._open[number], done) for number, done in self._done_bytes.items())

    def _bar(self, file: FileOffered, done_bytes: int) -> str:
        filled = _share(done_bytes, file, _BAR_CHARS)
        arrow = "→" if file.outgoing else "←"
        return (
            f"{visible(file.name)} {arrow} {visible(file.peer)} [{'#' * filled:.<{_BAR_CHARS}}]"
            f" {_share(done_bytes, file, 100)} % of {megabytes(file.size_bytes)}"
        )

    def _number(self, number: str, *, offered: bool) -> int:
        """Our own number of a file from the one that both sides see."""
        known = {str(file.file): file for file in self._open.values() if not offered or not file.outgoing}
        if not known:
            raise FileError("No file transfer is waiting.")
        if number and number not in known:
            raise FileError(f"No file transfer {visible(number)} is waiting; there is {', '.join(known)}.")
        return known[number or next(reversed(known))].id


def _share(done_bytes: int, file: FileEvent, parts: int) -> int:
    """How many of so many parts of the file are done; of an empty one, all."""
    return parts * done_bytes // file.size_bytes if file.size_bytes else parts
