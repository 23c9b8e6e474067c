"""IdWindow: accepts each message id of a session once."""

from chat.protocol.errors import Refusal

#: How far a message id may lie behind the highest of its session and still be judged new or known.
ID_WINDOW = 4096


class IdWindow:
    """Accepts each message id once: the highest so far, and one bit for each of the ids below it.

    The scheme of IPsec's anti-replay window (RFC 4303, 3.4.3): constant memory, any order within the window.
    """

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self._seen = 0

    def accept(self, number: int) -> bool:
        """Whether this is the first time.

        Raises:
            Refusal: the id lies too far back to tell.
        """
        ahead = number - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & (1 << ID_WINDOW) - 1 if ahead < ID_WINDOW else 1
            self.highest = number
            return True
        if -ahead >= ID_WINDOW:
            raise Refusal("stale_id", f"Message ids must rise; {number} is more than {ID_WINDOW} behind.")
        bit = 1 << -ahead
        if self._seen & bit:
            return False
        self._seen |= bit
        return True
