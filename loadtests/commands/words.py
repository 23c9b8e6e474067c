"""How the commands write numbers and tables for people."""

import shutil
import sys
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(size_bytes: float) -> str:
    """`3 MB`, `1.2 GB`, with two digits."""
    unit, name = next((each for each in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size_bytes >= each[0]), (1e3, "kB"))
    return f"{size_bytes / unit:.2g} {name}" if size_bytes < 100 * unit else f"{size_bytes / unit:.0f} {name}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """Columns under their names, numbers to the right; `left`: the names of columns that are text.

    On a terminal, lines that do not fit are cut at its width.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:{width}}" if name in left else f"{cell:>{width}}"
            for name, cell, width in zip(header, row, widths, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(fitted(line) for line in lines)


def fitted(line: str) -> str:
    """The line, cut at the terminal's width if it is to be shown on one."""
    width = shutil.get_terminal_size().columns
    return f"{line[: width - 1]}…" if sys.stdout.isatty() and len(line) > width else line
