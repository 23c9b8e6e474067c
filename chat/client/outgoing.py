"""Outgoing: our messages and requests until each is answered, oldest first, whichever connection takes them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from chat.protocol.errors import TooLong, TooMuchUnderWay
from chat.protocol.message import Message
from chat.protocol.messages import Say, SetTopic, Tell
from chat.protocol.wire import encode

#: Most messages under way. The server tells old ids from new within 4096 of the highest; a message beyond that, sent
#: again on a new connection, would be refused although it had been accepted.
MAX_UNDER_WAY = 4_000


class Pending(NamedTuple):
    """A message on its way, or waiting for a connection."""

    message: Message
    line: bytes
    intended_ns: int
    sent_ns: int


class Outgoing:
    """What is pending, by its ids, which rise."""

    def __init__(self) -> None:
        self.pending: dict[int, Pending] = {}
        self._last_id = 0
        #: The last message that any connection of this session was given; what comes after it is waiting.
        self._given_id = 0
        #: The last message that the server has accepted, if it said so when it went.
        self._accepted_id: int | None = None

    def __repr__(self) -> str:
        return f"<Outgoing {len(self.pending)} pending, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many no connection has been given yet."""
        return min(len(self.pending), self._last_id - self._given_id)

    def was_given(self, number: int) -> bool:
        """Whether a connection of this session was given this message."""
        return number <= self._given_id

    def has_before(self, number: int) -> bool:
        """Whether anything is pending that is older than this id."""
        return next(iter(self.pending), number) < number

    def add(self, message_of: Callable[[int], Message], intended_ns: int, sent_ns: int, line_bytes: int) -> int:
        """A message, made of its id, is to be sent: its id.

        Raises:
            TooMuchUnderWay: too many messages are neither echoed nor refused.
            TooLong: it needs a line of more than `line_bytes`.
            NotText: there is half a character in it.
        """
        if self.pending and self._last_id - next(iter(self.pending)) >= MAX_UNDER_WAY - 1:
            raise TooMuchUnderWay(f"{len(self.pending)} messages are under way; wait until some have come back.")
        number = self._last_id + 1
        message = message_of(number)
        self.pending[number] = Pending(message, line_of(message, line_bytes), intended_ns, sent_ns)
        self._last_id = number
        return number

    def add_ahead(self, messages_of: Sequence[Callable[[int], Message]], sent_ns: int) -> list[int]:
        """The same for several in a new session, under ids below those of what waits, if there is room: their ids."""
        first_id = next(iter(self.pending), self._last_id + 1) - len(messages_of)
        if not self.pending or first_id < 1:
            first_id = self._last_id + 1
        self._last_id = max(self._last_id, first_id + len(messages_of) - 1)
        for number, message_of in enumerate(messages_of, first_id):
            message = message_of(number)
            self.pending[number] = Pending(message, encode(message), sent_ns, sent_ns)
        self.pending = dict(sorted(self.pending.items()))
        return [*range(first_id, first_id + len(messages_of))]

    def pop(self, number: int) -> Pending | None:
        """This message is answered; returns it, if it was pending."""
        return self.pending.pop(number, None)

    def take_unfit(self, line_bytes: int, *, private: bool) -> dict[int, Pending]:
        """Give up those whose lines are longer than this, and maybe private messages; return them."""
        unfit = {
            number: each
            for number, each in self.pending.items()
            if len(each.line) - 1 > line_bytes or (private and isinstance(each.message, Tell))
        }
        self.pending = {number: each for number, each in self.pending.items() if number not in unfit}
        return unfit

    def answer(self, number: int, kind: type[Say | Tell | SetTopic], text: str) -> Pending | None:
        """This message is answered, if it is of this kind and says this; returns it, if it was pending."""
        pending = self.pending.get(number)
        message = pending and pending.message
        return self.pop(number) if isinstance(message, kind) and message.text == text else None

    def lines_after(self, after_id: int, max_bytes: int) -> tuple[bytes, int]:
        """The lines of pending messages after this id, oldest first, and the id of the last of them.

        At least one line if there is any, and more only within `max_bytes`. A connection that begins to carry messages
        is given all of them, from 0: the server accepts each id once, so that too many do no harm.
        """
        lines: list[bytes] = []
        size, last_id = 0, after_id
        for number in range(max(after_id + 1, next(iter(self.pending), 0)), self._last_id + 1):
            pending = self.pending.get(number)
            if pending is None:
                continue
            size += len(pending.line)
            if lines and size > max_bytes:
                break
            lines.append(pending.line)
            last_id = number
        if last_id > self._given_id:
            self._given_id = last_id
        return b"".join(lines), last_id

    def ends_after(self, accepted_id: int) -> None:
        """The server goes, and has granted or refused every message up to this id, and none above it."""
        self._accepted_id = accepted_id

    def take_given(self) -> dict[int, Pending]:
        """The session has ended: take out what was said and given to it, and so may have been accepted."""
        if self._accepted_id is not None:
            self._given_id, self._accepted_id = self._accepted_id, None
        given = {
            number: each
            for number, each in self.pending.items()
            if self.was_given(number) and isinstance(each.message, Say | Tell)
        }
        for number in given:
            del self.pending[number]
        return given


def line_of(message: Message, line_bytes: int) -> bytes:
    """The line of a message; raises TooLong: the server takes none of this length; NotText: as :func:`encode`."""
    line = encode(message)
    if len(line) - 1 > line_bytes:
        raise TooLong(f"That is too long: the server takes no more than {line_bytes} bytes at once.")
    return line
