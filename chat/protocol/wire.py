"""Bytes ↔ messages: newline-delimited UTF-8 JSON, whole or in pieces.

Newlines frame because both ends can be played by `nc` and read by eye, and because many lines are cut and decoded in
one call each, which costs less per message than a length prefix handled in Python.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import msgspec

from chat.protocol.errors import NotText
from chat.protocol.message import Message
from chat.protocol.messages import Down, RoomLine, Up
from chat.words import brief, visible

_encoder = msgspec.json.Encoder()
UP: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)
DOWN: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)
ROOM_LINE: msgspec.json.Decoder[RoomLine] = msgspec.json.Decoder(RoomLine)

#: About how much is decoded at once. What waits for its turn waits as bytes: as objects, short lines would occupy
#: a hundred times as much.
SLICE_BYTES = 4_096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no message. The peer's fault.

    After a fatal one nothing more can be read: where the next line starts, or what its bytes mean, is unknown.
    """

    code: str
    reason: str
    fatal: bool = False


def encode(message: Message) -> bytes:
    """The line of a message, with its newline. JSON escapes control characters, so there is no other newline in it.

    Raises:
        NotText: something in it has no UTF-8.
    """
    try:
        return _encoder.encode(message) + b"\n"
    except UnicodeEncodeError as error:
        raise _not_text(error) from None


def encode_all(messages: Sequence[Message]) -> list[bytes]:
    """The line of each, in one call.

    Raises:
        NotText: something in one of them has no UTF-8.
    """
    if len(messages) == 1:
        # splitlines() of a single line is no copy but the encoder's buffer, cut short: kept in a log, it wastes memory.
        return [encode(messages[0])]
    try:
        return _encoder.encode_lines(messages).splitlines(keepends=True)
    except UnicodeEncodeError as error:
        raise _not_text(error) from None


def _not_text(error: UnicodeEncodeError) -> NotText:
    return NotText(f"That cannot be sent: {visible(error.object[error.start : error.end])} in it is no character.")


class LineReader(Generic[T]):
    """Cuts a stream of bytes into messages. How the stream was cut into pieces makes no difference."""

    def __init__(self, decoder: "msgspec.json.Decoder[T]", max_line_bytes: int) -> None:
        self._decoder = decoder
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._dead = False

    @property
    def is_within(self) -> bool:
        """Whether a line has begun that is not complete."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[T | BadLine]:
        """Take the next bytes; return the messages and bad lines that they complete, in order."""
        return [*chain.from_iterable(self.read(data))]

    def read(self, data: bytes) -> Iterable[Sequence[T | BadLine]]:
        """The same, a few at a time as they are asked for; all of them before the next bytes are read."""
        if len(data) <= SLICE_BYTES and not self._rest and data.endswith(b"\n") and not self._dead:
            return self._decode(data)  # as people type: whole lines, and nothing before or after them
        return self._read_in_slices(data)

    def _read_in_slices(self, data: bytes) -> Iterator[Sequence[T | BadLine]]:
        if self._dead:
            return
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
        else:
            whole = bytes(self._rest) + data[:end] if self._rest else data[:end]
            self._rest[:] = data[end:]
            begin = 0
            while begin < len(whole) and not self._dead:
                stop = whole.rfind(b"\n", begin, begin + SLICE_BYTES) + 1 or whole.index(b"\n", begin) + 1
                yield from self._decode(whole[begin:stop])
                begin = stop
        if not self._dead and len(self._rest) > self._max_line_bytes:
            yield [self._too_long()]

    def _decode(self, lines: bytes) -> Iterable[Sequence[T | BadLine]]:
        """Complete lines: all together, or one by one when one of them is unusual."""
        if len(lines) <= self._max_line_bytes:
            try:
                return [[*map(self._decoder.decode, lines.split(b"\n")[:-1])]]
            except (ValueError, RecursionError):
                pass
        return self._decode_one_by_one(lines)

    def _decode_one_by_one(self, lines: bytes) -> Iterator[Sequence[T | BadLine]]:
        if len(lines) <= self._max_line_bytes and not lines.strip():
            return  # many of them cost nothing, and so must be looked at no further
        for line in lines.split(b"\n")[:-1]:
            if len(line) > self._max_line_bytes:
                yield [self._too_long()]
            elif line.strip():  # not a person pressing Enter in nc
                try:
                    message = self._decoder.decode(line)
                except (ValueError, RecursionError) as error:
                    yield [self._judge(line, error)]
                else:
                    yield [message]
            if self._dead:
                return

    def _judge(self, line: bytes, error: Exception) -> BadLine:
        try:
            line.decode()
        except UnicodeDecodeError:
            self._die()
            return BadLine("not_utf8", "The line is not UTF-8.", fatal=True)
        return BadLine("malformed", f"The line is not a message: {brief(str(error))}.")

    def _too_long(self) -> BadLine:
        self._die()
        return BadLine("line_too_long", f"The line is longer than {self._max_line_bytes} bytes.", fatal=True)

    def _die(self) -> None:
        self._dead = True
        self._rest.clear()
