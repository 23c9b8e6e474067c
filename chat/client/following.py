"""Following: which connections bring the logs, and which of them is waited for when lines are missing."""

from chat.client.events import PathName


class Following:
    """The connections that bring the logs.

    Where lines are missing on one, the other may bring them: then that one brings everything, until it also has a gap,
    or breaks. Then the first is asked again, and until it has answered, what it still brings is not what it was asked
    for.
    """

    def __init__(self) -> None:
        self._paths: set[PathName] = set()
        #: Those among them, and the logs, of which lines are passed over for now.
        self._passed_over: set[tuple[PathName, str]] = set()

    def __repr__(self) -> str:
        return f"<Following {sorted(self._paths)}, {len(self._passed_over)} passed over>"

    def __contains__(self, path: PathName) -> bool:
        return path in self._paths

    def add(self, path: PathName) -> None:
        """A connection brings the logs from now on."""
        self._paths.add(path)

    def stop(self, path: PathName) -> set[PathName]:
        """A connection is gone. Return those that must be asked again for lines that it would have brought."""
        self._paths.discard(path)
        ask_again = {other for other, _ in self._passed_over} & self._paths
        self._passed_over.clear()
        self._paths -= ask_again
        return ask_again

    def passes_over(self, path: PathName, log: str) -> bool:
        """Whether to drop what came after a gap: the other connection may bring it, and the missing lines too."""
        if path not in self._paths:
            return True
        if all(other == path or (other, log) in self._passed_over for other in self._paths):
            return False
        self._passed_over.add((path, log))
        return True

    def note_line(self, path: PathName, log: str) -> None:
        """A line came without a gap that this connection would be passed over for."""
        if self._passed_over:
            self._passed_over.discard((path, log))
