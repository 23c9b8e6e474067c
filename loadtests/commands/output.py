"""Files that a command is told to write."""

import os
from pathlib import Path

from chat.words import reason_of
from loadtests.errors import HarnessError


def check_writable(file: Path) -> None:
    """Raises HarnessError: what is to be written there after all the work could not be."""
    is_new = not os.path.exists(file)
    try:
        with file.open("ab"):
            pass
        if is_new:
            file.unlink()
    except OSError as error:
        raise HarnessError(f"{file}: cannot be written: {reason_of(error)}") from error
