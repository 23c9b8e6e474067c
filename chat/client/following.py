"""Following: which connections bring the logs, and which of them is waited for when lines are missing."""

from chat.client.events import PathName


class Following:
    """The connections that bring the logs of a session.

    Where lines are missing on one, the other may bring them: then that one brings everything, until it also has a gap,
    or breaks. Then the first is asked again, and until it has answered, what it still brings is not what it was asked
    for.

    A connection that is let in late may be told at once that we have left a room of which another, slower one has still
    to bring the last lines. It is **ahead** of it, and what it says of our rooms does not count until that other one
    has said so too, in its place behind those lines.
    """

    def __init__(self) -> None:
        self._paths: set[PathName] = set()
        #: Those among them, and the logs, of which lines are passed over for now.
        self._passed_over: set[tuple[PathName, str]] = set()
        #: The last change of our rooms that each of them told while it did not count.
        self._ahead: dict[PathName, int] = {}
        #: The id of the last `join` or `leave` that has taken effect.
        self.last_change = 0

    def __repr__(self) -> str:
        return f"<Following {sorted(self._paths)}, {len(self._passed_over)} passed over>"

    def __contains__(self, path: PathName) -> bool:
        return path in self._paths

    @property
    def is_waiting(self) -> bool:
        """Whether one is ahead, so that another one has still to say which rooms we are in."""
        return any(number > self.last_change for number in self._ahead.values())

    def add(self, path: PathName, last_change: int = 0) -> None:
        """A connection brings the logs from now on.

        Args:
            last_change: the id of the last change of our rooms that came before what it brings.
        """
        self._ahead.pop(path, None)
        if last_change > self.last_change and self._is_another_in_step(path):
            self._ahead[path] = last_change
        self._paths.add(path)

    def stop(self, path: PathName) -> set[PathName]:
        """A connection is gone. Return those that must be asked again for what it would have brought."""
        self._paths.discard(path)
        ask_again = {other for other in self._paths if not self._is_in_step(other)}
        self._passed_over.clear()
        self._ahead.clear()
        self._paths -= ask_again
        return ask_again

    def may_change(self, path: PathName, number: int) -> bool:
        """Whether what this connection says of our rooms counts: it is news, and comes behind all lines before it.

        Args:
            number: the id of the last change that it knows of.
        """
        if number < self.last_change or path not in self._paths:
            return False
        if not self._is_in_step(path) and self._is_another_in_step(path):
            self._ahead[path] = number
            return False
        self.last_change = number
        return True

    def passes_over(self, path: PathName, log: str) -> bool:
        """Whether to drop what came after a gap: the other connection may bring it, and the missing lines too."""
        if path not in self._paths:
            return True
        if all(other == path or (other, log) in self._passed_over for other in self._paths):
            return False
        self._passed_over.add((path, log))
        return True

    def pass_over_if_ahead(self, path: PathName, log: str) -> None:
        """A line was dropped because, as far as we know, we are not in its room.

        A connection that is ahead may know better. The other one has still to say so, and then brings the lines of that
        room: what this one brought does not come again, so nobody is to wait for it.
        """
        if self._ahead.get(path, 0) > self.last_change:
            self._passed_over.add((path, log))

    def forget(self, log: str) -> None:
        """We have left this room: whoever brings lines of it, nobody waits for them."""
        self._passed_over -= {(path, log) for path in self._paths}

    def note_line(self, path: PathName, log: str) -> None:
        """A line came without a gap that this connection would be passed over for."""
        if self._passed_over:
            self._passed_over.discard((path, log))

    def _is_in_step(self, path: PathName) -> bool:
        """Whether nothing that this connection brought has still to come from another one."""
        ahead = self._ahead.get(path, 0) > self.last_change
        return not ahead and all(other != path for other, _ in self._passed_over)

    def _is_another_in_step(self, path: PathName) -> bool:
        return any(map(self._is_in_step, self._paths - {path}))
