"""Lines broken between words at a terminal's width. Pure."""

import itertools
from collections.abc import Iterable

from prompt_toolkit.utils import get_cwidth

#: A style, and a text that has it.
Fragment = tuple[str, str]


def wrapped(line: Iterable[Fragment], width: int, indent: int) -> list[Fragment]:
    """The fragments of one line, with a line break and `indent` spaces where a word would cross the right edge.

    A word that is longer than a row is broken anywhere. To leave that to the terminal would let it go on at the left
    edge, where the next line begins: a text could look like several lines, of others too.
    """
    indent = max(0, min(indent, width - 2))  # something must fit beside it
    row_break = ("", "\n" + " " * indent)
    out: list[Fragment] = []
    column, space = 0, None
    for style, text in line:
        for char in text:
            cells = get_cwidth(char)
            if column + cells > width:
                if space is not None:
                    tail = out[space + 1 :]
                    out[space:] = [row_break, *tail]
                    column = indent + sum(get_cwidth(each) for _, each in tail)
                    space = None
                if column + cells > width:
                    out.append(row_break)
                    column = indent
            if char == " " and column > indent:
                space = len(out)
            out.append((style, char))
            column += cells
    return _joined(out)


def _joined(chars: list[Fragment]) -> list[Fragment]:
    """Neighbours of the same style in one piece."""
    runs = itertools.groupby(chars, lambda each: each[0])
    return [(style, "".join([char for _, char in run])) for style, run in runs]
