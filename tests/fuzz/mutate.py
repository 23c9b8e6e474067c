"""Inputs made of other inputs: a value for a value, a line moved, doubled, left out, or taken from elsewhere.

Bytes changed at random seldom leave a message that is understood, and what is behind the decoder is never reached.
"""

import re
from random import Random

#: Parts an input into what comes over one connection and over the next.
NEXT = b"\x00"

_LINE = re.compile(rb"[^\n\0]*[\n\0]|[^\n\0]+")
#: A string with its quotes, a bare word or number, or one character of punctuation.
_TOKEN = re.compile(rb'"(?:[^"\\\n\0]|\\.)*"|[^\s{}\[\]:,"\0]+|.', re.DOTALL)
_VALUES = [
    *(b"0", b"1", b"-1", b"2", b"3", b"9", b"1000", b"1.5", b"1e999", b"1e-320", b"NaN"),
    *(b"4294967296", b"9223372036854775807", b"18446744073709551615", b"-9223372036854775809"),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"x"', b'"ana"', b'"ben"', b'"lobby"', b'"inbox"', b'"tea"'),
    b'"witness"',
    *(b'"done"', b'"../victim"', b'"\\u0000"', b'"\\ud800"', b'"' + b"9" * 40 + b'"', b'"' + b"w" * 3_000 + b'"'),
]


def mutated(data: bytes, words: list[bytes], random: Random) -> bytes:
    """The input with one to eight changes; what is put in comes from `words`, or is a value at the edge of a type."""
    lines: list[bytes] = _LINE.findall(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(lines) + 1)
        if at == len(lines):
            lines.append(random.choice(words))
            continue
        match random.randrange(8):
            case 0:
                lines.insert(at, random.choice(words))
            case 1:
                lines.insert(at, NEXT)
            case 2:
                del lines[at]
            case 3:
                lines.insert(random.randrange(len(lines) + 1), lines[at])
            case 4:
                line = lines.pop(at)
                lines.insert(random.randrange(len(lines) + 1), line)
            case _:
                lines[at] = _with_another_value(lines[at], words, random)
    return b"".join(lines)


def _with_another_value(line: bytes, words: list[bytes], random: Random) -> bytes:
    tokens: list[bytes] = _TOKEN.findall(line)
    places = [at for at, token in enumerate(tokens) if _is_value(token)]
    if places:
        others = [token for token in _TOKEN.findall(random.choice(words)) if _is_value(token)]
        tokens[random.choice(places)] = random.choice(others if others and random.random() < 0.5 else _VALUES)
    return b"".join(tokens)


def _is_value(token: bytes) -> bool:
    return token[:1].isalnum() or (token[:1] in b'"-.~&*!<' and len(token) > 1)
