"""IdWindow: accepts each message id of a session once."""

from chat.protocol.errors import Refusal

#: How far a message id may lie behind the highest of its session and still be judged new or known.
ID_WINDOW = 4096


class IdWindow:
    """Accepts each message id once: any order within the window, constant memory.

    The scheme of IPsec's anti-replay window (RFC 4303, 3.4.3), as a ring (RFC 6479) of one byte for each id. Who
    numbers its messages without leaving one out needs no ring: there, every id up to the highest is known.
    """

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self._seen: bytearray | None = None

    def accept(self, number: int) -> bool:
        """Whether this is the first time.

        Raises:
            Refusal: the id lies too far back to tell.
        """
        seen = self._seen
        if seen is None and number == self.highest + 1:
            self.highest = number
            return True
        if number <= self.highest - ID_WINDOW:
            raise Refusal("stale_id", f"Message ids must rise; {number} is more than {ID_WINDOW} behind.")
        if seen is None:
            if number <= self.highest:
                return False
            seen = self._seen = bytearray(b"\1") * ID_WINDOW
        if number > self.highest:
            self._leave_out(seen, self.highest + 1, number)
            self.highest = number
        elif seen[number % ID_WINDOW]:
            return False
        seen[number % ID_WINDOW] = 1
        return True

    def knows(self, number: int | None) -> bool:
        """Whether it has been accepted, as far as that can be told; no number has not."""
        if number is None or not self.highest - ID_WINDOW < number <= self.highest:
            return False
        return self._seen is None or self._seen[number % ID_WINDOW] == 1

    def accept_next(self, count: int) -> None:
        """Accept so many ids in a row, the first of which is the next one."""
        if self._seen is None:
            self.highest += count
        else:
            for _ in range(count):
                self.accept(self.highest + 1)

    def _leave_out(self, seen: bytearray, first: int, end: int) -> None:
        """These ids have not been seen; their places in the ring stood for ids that are too old by now."""
        count = min(end - first, ID_WINDOW)
        start = first % ID_WINDOW
        until_end = min(count, ID_WINDOW - start)
        seen[start : start + until_end] = bytes(until_end)
        seen[: count - until_end] = bytes(count - until_end)
