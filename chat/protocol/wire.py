"""Bytes ↔ messages: newline-delimited UTF-8 JSON, whole or in pieces.

Newlines frame because both ends can be played by `nc` and read by eye, and because the decoder takes a whole receive
buffer in one call, which costs less per message than a length prefix handled in Python.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from chat.protocol.messages import Down, Message, Up

_encoder = msgspec.json.Encoder()
UP: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)
DOWN: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)

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
    """The line of a message, with its newline. JSON escapes control characters, so there is no other newline in it."""
    return _encoder.encode(message) + b"\n"


class LineReader(Generic[T]):
    """Cuts a stream of bytes into messages. How the stream was cut into pieces makes no difference."""

    def __init__(self, decoder: "msgspec.json.Decoder[T]", max_line_bytes: int) -> None:
        self._decoder = decoder
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._dead = False

    def feed(self, data: bytes) -> list[T | BadLine]:
        """Take the next bytes; return the messages and bad lines that they complete, in order."""
        if self._dead:
            return []
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
            return self._too_long() if len(self._rest) > self._max_line_bytes else []
        whole = bytes(self._rest) + data[:end]
        self._rest = bytearray(data[end:])
        found = self._read(whole)
        if not self._dead and len(self._rest) > self._max_line_bytes:
            found += self._too_long()
        return found

    def _read(self, whole: bytes) -> list[T | BadLine]:
        """Decode complete lines: all in one call, or one by one when that call meets something unusual."""
        if len(whole) <= self._max_line_bytes:
            try:
                messages: list[Any] = self._decoder.decode_lines(whole)
            except (ValueError, RecursionError):
                pass
            else:
                # The decoder also takes two objects on a line, or one on two lines; we do not.
                if len(messages) == whole.count(b"\n"):
                    return messages
        return self._read_one_by_one(whole)

    def _read_one_by_one(self, whole: bytes) -> list[T | BadLine]:
        found: list[T | BadLine] = []
        for line in whole.split(b"\n")[:-1]:
            if len(line) > self._max_line_bytes:
                return found + self._too_long()
            if not line.strip():
                continue  # a person pressing Enter in nc
            try:
                found.append(self._decoder.decode(line))
            except (ValueError, RecursionError) as error:
                found.append(self._judge(line, error))
                if self._dead:
                    break
        return found

    def _judge(self, line: bytes, error: Exception) -> BadLine:
        try:
            line.decode()
        except UnicodeDecodeError:
            self._die()
            return BadLine("not_utf8", "The line is not UTF-8.", fatal=True)
        return BadLine("malformed", f"The line is not a message: {error}.")

    def _too_long(self) -> list[T | BadLine]:
        self._die()
        return [BadLine("line_too_long", f"The line is longer than {self._max_line_bytes} bytes.", fatal=True)]

    def _die(self) -> None:
        self._dead = True
        self._rest.clear()
