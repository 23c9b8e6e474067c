"""Files that a program writes beside its work: what was said, typed, or measured."""

import contextlib
import os
from typing import TextIO


def private(path: str, flags: int) -> int:
    """For `open(…, opener=private)`: if the file is made now, its owner alone can read it."""
    return os.open(path, flags, 0o600)


def close(file: TextIO) -> None:
    """Also where the disk is full: what does not fit any more has been said to be missing."""
    with contextlib.suppress(OSError):
        file.close()
