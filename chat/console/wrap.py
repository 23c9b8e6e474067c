"""Lines broken between words at a terminal's width. Pure."""

from collections.abc import Iterable

from prompt_toolkit.utils import get_cwidth

#: A style, and a text that has it.
Fragment = tuple[str, str]


def wrapped(line: Iterable[Fragment], width: int, indent: int) -> list[Fragment]:
    """The fragments of one line, with a line break and `indent` spaces where a word would cross the right edge.

    A word that is longer than a line is left to the terminal, which breaks it anywhere, so that it can be copied whole.
    """
    out: list[Fragment] = []
    column, space = 0, None
    for style, text in line:
        for char in text:
            cells = get_cwidth(char)
            if column + cells > width:
                if space is None:
                    column = 0
                else:
                    tail = out[space + 1 :]
                    out[space:] = [("", "\n" + " " * indent), *tail]
                    column = indent + sum(get_cwidth(each) for _, each in tail)
                    space = None
            if char == " " and column > indent:
                space = len(out)
            out.append((style, char))
            column += cells
    return _joined(out)


def _joined(chars: list[Fragment]) -> list[Fragment]:
    """Neighbours of the same style in one piece."""
    fragments: list[Fragment] = []
    for style, char in chars:
        if fragments and fragments[-1][0] == style:
            fragments[-1] = (style, fragments[-1][1] + char)
        else:
            fragments.append((style, char))
    return fragments
