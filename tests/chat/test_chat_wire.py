"""Framing: whole, byte by byte, and cut at random places must mean the same."""

import random

import pytest

from chat.protocol.messages import Bye, Hello, Ping, Said, Say, Up
from chat.protocol.wire import DOWN, UP, BadLine, LineReader, encode, encode_all

STREAM = (
    encode(Hello("ana"))
    + b'\n  \r\n{"type":"say","text":"caf\xc3\xa9 \\u001b","id":7,"unknown":{"a":[1]}}\r\n'
    + b"nonsense\n"
    + b'{"type":"ping"}{"type":"ping"}\n'
    + b'{"type":"no such"}\n'
    + b'{"type":"ping",\n"n":1}\n'
    + b"[" * 5000
    + b"\n"
    + encode(Bye())
)
MEANING = [Hello("ana"), Say("café \x1b", 7), *["malformed"] * 6, Bye()]


def read(pieces: list[bytes], max_line_bytes: int = 8192) -> list[object]:
    reader: LineReader[Up] = LineReader(UP, max_line_bytes)
    found = [message for piece in pieces for message in reader.feed(piece)]
    return [message.code if isinstance(message, BadLine) else message for message in found]


def test_whole() -> None:
    assert read([STREAM]) == MEANING


@pytest.mark.parametrize(
    "lines",
    [
        b'{"type":"ping"}{"type":"ping"}\n\n',
        b'{"type":"ping"}{"type":"ping",\n"n":1}\n',
        b'{"type":"ping"}{"type":"attach","token":"t","cursors":{}\n}\n',
    ],
)
def test_as_many_messages_as_lines_but_not_one_on_each(lines: bytes) -> None:
    assert set(read([lines])) == {"malformed"}


def test_byte_by_byte() -> None:
    assert read([STREAM[i : i + 1] for i in range(len(STREAM))]) == MEANING


@pytest.mark.parametrize("seed", range(50))
def test_random_cuts(seed: int) -> None:
    cuts = sorted(random.Random(seed).sample(range(len(STREAM)), 12))
    assert read([STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]) == MEANING


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_not_utf8_is_the_end(size: int) -> None:
    data = encode(Ping(1)) + b'{"type":"say","text":"\xff"}\n' + encode(Ping(2))
    assert read([data[i : i + size] for i in range(0, len(data), size)]) == [Ping(1), "not_utf8"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_too_long_is_the_end(size: int) -> None:
    fits = b'{"type":"say","text":"' + b"x" * 40 + b'"}'
    data = fits + b"\n" + fits + b" \n" + fits + b"\n"
    assert read([data[i : i + size] for i in range(0, len(data), size)], len(fits)) == [
        Say("x" * 40),
        "line_too_long",
    ]


def test_too_long_after_good_lines_in_one_read() -> None:
    assert read([encode(Ping()) + b"x" * 100], 50) == [Ping(), "line_too_long"]
    assert read([b"x" * 100 + b"\n"], 50) == ["line_too_long"]


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n", b" " * 8_000 + b"\n"])
def test_blank_lines_are_nothing(blank: bytes) -> None:
    assert read([blank * 20]) == read([blank, blank * 19]) == []
    assert read([blank * 3 + b'{"type":"ping"}\n' + blank]) == [Ping()]


def test_bad_line_says_what_is_wrong() -> None:
    (bad,) = LineReader(UP, 100).feed(b'{"type":"say","text":1}\n')
    assert isinstance(bad, BadLine)
    assert not bad.fatal
    assert "Expected `str`, got `int`" in bad.reason


def test_encoded_newlines_do_not_break_lines() -> None:
    assert encode(Say("a\nb\r\u2028")).count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"said","log":"lobby","seq":-1,"from":"x","text":"x"}',
        b'{"type":"said","log":"lobby","seq":1180591620717411303424,"from":"x","text":"x"}',
        b'{"type":"welcome","nick":"x","token":"t","cursors":{},"limits":{"line_bytes":-1180591620717411303424}}',
        b'{"type":"file_offered","log":"inbox","seq":1,"from":"x","to":"y","file":1,"name":"n","size":-5,"sha256":"%s"}'
        % (b"a" * 64),
        b'{"type":"file_offered","log":"inbox","seq":1,"from":"x","to":"y","file":1,"name":"n","size":5,'
        b'"sha256":"/../../victim"}',
        b'{"type":"file_offered","log":"inbox","seq":1,"from":"x","to":"y","file":1,"name":"n","size":5,'
        b'"sha256":"%s\\n"}' % (b"a" * 64),
        b'{"type":"bye","reason":"x","back_in_s":-1}',
    ],
)
def test_a_server_is_held_to_the_same_types_as_a_client(line: bytes) -> None:
    (found,) = LineReader(DOWN, 65_536).feed(line + b"\n")
    assert isinstance(found, BadLine)
    assert found.code == "malformed"


def test_a_line_ends_where_the_message_ends_whatever_is_said() -> None:
    messages = [Said("lobby", 1, "ana", "".join(map(chr, range(0x100))) + "\u2028\u2029"), Ping(), Bye("\r\n")]
    assert encode_all(messages) == [encode(message) for message in messages]
    assert [line.count(b"\n") for line in encode_all(messages)] == [1, 1, 1]
    assert encode_all([]) == []
