"""Files under load: what one user sends, and what it receives from others and throws away."""

import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from chat.client.client import ChatClient
from chat.client.events import Event, FileDone, FileFailed, FileOffered
from chat.protocol.errors import ChatError

#: Called when a file that we sent is over: its number, to whom, when it began, how it ended, bytes sent more than once.
Over = Callable[[int, str, int, str, int], None]


class FileStore:
    """The scratch folder of a load process, with the one file that all its users send."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    @cached_property
    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="chatlab-files-"))

    @cached_property
    def source(self) -> Path:
        path = self.folder / "file"
        with path.open("wb") as file:
            # Nothing between the users compresses, so that zeros do as well.
            file.truncate(self._size_bytes)
        return path

    def new_folder(self) -> Path:
        """An empty folder, for a file that is received."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def close(self) -> None:
        """Remove everything."""
        if "folder" in vars(self):
            shutil.rmtree(self.folder, ignore_errors=True)


class FileTraffic:
    """The files of one user."""

    def __init__(self, client: ChatClient, store: FileStore, over: Over) -> None:
        self._client = client
        self._store = store
        self._over = over
        self._begun_ns: dict[int, int] = {}
        #: Where each file that comes to us goes.
        self._folders: dict[int, Path] = {}

    def send(self, nick: str, intended_ns: int) -> int:
        """Send the file to somebody, and return its number; it counts from when it was meant to be sent."""
        number = self._client.files.send(nick, self._store.source)
        self._begun_ns[number] = intended_ns
        return number

    def note(self, event: Event) -> None:
        """Accept what is offered, drop what has arrived, tell what became of what we sent."""
        match event:
            case FileOffered(number, outgoing=False):
                # A folder for each: the same file may come to us twice at the same time. No name of a peer is in it.
                folder = self._folders[number] = self._store.new_folder()
                try:
                    self._client.files.accept(number, folder)
                except ChatError:
                    self._client.files.cancel(number, "It cannot be stored.")
            case FileDone(number, outgoing=False) | FileFailed(number, outgoing=False):
                if number in self._folders:
                    shutil.rmtree(self._folders.pop(number), ignore_errors=True)
            case FileDone(number):
                self._over(number, event.peer, self._begun_ns.pop(number), "done", event.resent_bytes)
            case FileFailed(number):
                self._over(number, event.peer, self._begun_ns.pop(number), event.outcome, 0)
