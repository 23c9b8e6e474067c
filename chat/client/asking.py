"""Asking: the question what became of messages whose echo may have been missed, and the server's answer to it."""

from chat.protocol.fields import Cursors
from chat.protocol.messages import Settled


class Asking:
    """The server answers at once, ahead of lines: its answer holds when we have come as far as it says that it was."""

    def __init__(self) -> None:
        #: The server is to be asked.
        self.wanted = False
        #: How often it was, and has not answered yet.
        self._asked = 0
        #: Its last answer, as long as we have not come so far.
        self._answer: Settled | None = None

    def __repr__(self) -> str:
        return f"<Asking, {self._asked} without an answer{', wanted' if self.wanted else ''}>"

    @property
    def is_answered(self) -> bool:
        """Whether an answer waits for lines."""
        return self._answer is not None

    @property
    def is_done(self) -> bool:
        """Whether nothing is, or is to be, asked."""
        return not self._asked and not self.wanted

    def ask(self) -> None:
        """It is being asked."""
        self.wanted = False
        self._asked += 1

    def begin_anew(self) -> None:
        """A connection is gone, and with it perhaps a question or an answer."""
        if self._asked:
            self.wanted, self._asked = True, 0

    def answered(self, answer: Settled) -> None:
        """It has said how far it was."""
        self._asked = max(0, self._asked - 1)
        self._answer = answer

    def take_answer(self, cursors: Cursors) -> Settled | None:
        """The answer, once, as soon as we are as far as it says."""
        answer = self._answer
        if answer is None or any(cursors.get(log, seq) < seq for log, seq in answer.cursors.items()):
            return None
        self._answer = None
        return answer
