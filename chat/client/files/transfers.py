"""A transfer as either side knows it: what is known of the file, its state, and what it holds open."""

from pathlib import Path
from typing import Any, TypeVar

from chat.client import events
from chat.client.files.downloads import Part, Source
from chat.client.files.states import Incoming, Outgoing
from chat.net.loop import Timer

E = TypeVar("E", bound=events.FileEvent)


class File:
    """A transfer, as either side knows it."""

    def __init__(self, number: int, peer: str, name: str, size: int) -> None:
        self.id = number
        self.peer = peer
        self.name = name
        self.size = size
        self.sha256 = ""
        #: The server's number for it, once it has one.
        self.file = 0
        #: Our request that is under way: a refusal of it is the end.
        self.request = 0
        self.accepted_ns = 0
        self.told_ns = 0
        self.timer: Timer | None = None

    @property
    def done_bytes(self) -> int:
        """How much of it has arrived."""
        raise NotImplementedError

    def describe(self, kind: type[E], *more: Any) -> E:
        """The event of this kind."""
        return kind(
            self.id, isinstance(self, OutgoingFile), self.peer, self.name, self.size, self.sha256, self.file, *more
        )

    def close(self, *, keep: bool) -> None:
        """Free everything. `keep`: what was received may be of use for another offer."""
        if self.timer is not None:
            self.timer.cancel()


class OutgoingFile(File):
    """We send it."""

    def __init__(self, number: int, peer: str, source: Source, window_bytes: int) -> None:
        super().__init__(number, peer, source.name, source.size)
        self.source = source
        self.flow = Outgoing(source.size, window_bytes)

    @property
    def done_bytes(self) -> int:
        return self.flow.confirmed

    def close(self, *, keep: bool) -> None:
        super().close(keep=keep)
        self.source.close()


class IncomingFile(File):
    """We receive it, or may do so."""

    part: Part | None = None
    flow: Incoming | None = None
    kept_bytes = 0
    #: Where it landed.
    path: Path | None = None

    @property
    def done_bytes(self) -> int:
        return self.flow.have if self.flow else 0

    def close(self, *, keep: bool) -> None:
        super().close(keep=keep)
        if self.part is not None and self.path is None:
            if keep:
                self.part.close()
            else:
                self.part.discard()
