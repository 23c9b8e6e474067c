"""What was typed, in a file, for the arrow keys."""

from collections.abc import Callable

from prompt_toolkit.history import FileHistory

from chat.words import reason_of, visible


class KeptHistory(FileHistory):
    """What cannot be written is there until the program ends.

    Args:
        path: the file.
        complain: called with one sentence, the first time that it cannot be written.
    """

    def __init__(self, path: str, complain: Callable[[str], None]) -> None:
        super().__init__(path)
        self._complain = complain
        self._has_complained = False

    def store_string(self, string: str) -> None:
        """Write the line to the file, if that is possible."""
        try:
            super().store_string(string)
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                self._complain(f"! What you type cannot be kept in {visible(str(self.filename))}: {reason_of(error)}.")
