"""Doubts: messages that were given to a session which the server then forgot, and whose echo may still come.

Nobody knows whether they were accepted. In a session that goes on from the logs of the one before, each echo that comes
removes one; what has not come once the logs are read was never accepted.
"""

from chat.client.events import NotSent
from chat.client.outgoing import Pending
from chat.protocol import messages
from chat.protocol.fields import INBOX, Cursors


class Doubts:
    """Messages in doubt, by their ids."""

    def __init__(self) -> None:
        self.pending: dict[int, Pending] = {}
        #: What we were called, or had asked to be called, when we said them.
        self._names: set[str] = set()
        #: Logs of which lines were missed since, so that echoes may have been among them.
        self._missed_since: set[str] = set()

    def __repr__(self) -> str:
        return f"<Doubts about {len(self.pending)} message(s)>"

    def begin(self, pending: dict[int, Pending], names: set[str]) -> None:
        """The session that these were given to has ended.

        Args:
            names: what we were called in it, or had asked to be called.
        """
        self._names = names | (self._names if self.pending else set())
        self.pending |= pending

    def note_missed(self, log: str) -> None:
        """Lines of this log were missed while messages were under way, which may be in doubt some time, or are."""
        self._missed_since.add(log)

    def forget_missed(self) -> None:
        """It is known what became of all that was under way then."""
        self._missed_since.clear()

    def echoed(self, message: messages.Said | messages.Told, number: int) -> Pending | None:
        """What this line is the echo of, if anything: somebody else may have had our name in between."""
        pending = self.pending.get(number)
        if pending is None or message.from_ not in self._names or _log_of(pending) != message.log:
            return None
        return self.pending.pop(number) if _text_of(pending) == message.text else None

    def resolve(self, cursors: Cursors) -> list[NotSent]:
        """The logs are read up to these cursors: what has not come was never accepted, or among what was missed."""
        whole = cursors.keys() - self._missed_since
        resolved, self.pending = self.pending, {}
        return [not_sent(number, each, is_certain=_log_of(each) in whole) for number, each in resolved.items()]

    def give_up(self, *, rooms: bool) -> list[NotSent]:
        """Give up those whose echo cannot come any more.

        Args:
            rooms: those in rooms too; private ones never come again, since an inbox ends with its session.
        """
        given_up = [n for n, each in self.pending.items() if rooms or isinstance(each.message, messages.Tell)]
        return [not_sent(number, self.pending.pop(number), is_certain=False) for number in given_up]


def not_sent(number: int, pending: Pending, *, is_certain: bool) -> NotSent:
    """The event that tells that a message was not accepted, or perhaps not."""
    message = pending.message
    if isinstance(message, messages.Say):
        return NotSent(number, "say", None, message.text, message.room, is_certain)
    assert isinstance(message, messages.Tell)
    return NotSent(number, "tell", message.to, message.text, INBOX, is_certain)


def _log_of(pending: Pending) -> str:
    return pending.message.room if isinstance(pending.message, messages.Say) else INBOX


def _text_of(pending: Pending) -> str:
    return pending.message.text if isinstance(pending.message, messages.Say | messages.Tell) else ""
