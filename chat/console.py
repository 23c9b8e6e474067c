"""Console: the state of the interactive client, and what it shows; knows neither terminal nor pipe nor commands."""

from collections.abc import Callable

from chat.client import ChatClient, Mode
from chat.display import describe
from chat.events import Closed, Echoed, Event, Received, Registered
from chat.loop import Loop
from chat.recorder import Recorder
from chat.tally import Tally
from chat.transport import Address

#: The style of what one wrote oneself.
DIM = "fg:ansibrightblack"


class Console:
    """One person in the chat.

    Args:
        show: called with a line and the style to show it in.
        recorder: is given every message.
    """

    def __init__(
        self,
        loop: Loop,
        nick: str,
        primary: Address,
        secondary: Address | None,
        mode: Mode,
        *,
        show: Callable[[str, str], None],
        recorder: Recorder | None = None,
    ) -> None:
        self.client = ChatClient(loop, nick, primary, secondary, mode=mode, on_event=self._event)
        #: Called when the client is registered, and when it has ended.
        self.on_change: Callable[[], None] = lambda: None
        #: Why the chat ended, if we did not leave ourselves.
        self.failure: str | None = None
        self._show = show
        self._recorder = recorder
        self._tally = Tally()
        #: A refusal before is the end, and told as such.
        self._welcomed = False
        self._left = False

    def __repr__(self) -> str:
        return f"<Console {self.client!r}>"

    def show(self, line: str, style: str = "") -> None:
        """Let the person read this line, which holds nothing that could act on a terminal."""
        self._show(line, style)

    def say(self, text: str) -> None:
        """The person speaks to everyone."""
        self.client.say(text)

    def leave(self) -> None:
        """The person wants to go."""
        self._left = True
        self.client.leave()

    def stats(self) -> None:
        """Show response times and connections."""
        for line in self._tally.report(self.client.tcp_info()):
            self.show(f"* {line}")
        self.show(f"* {self.client.takeovers} takeover(s), {self.client.resumptions} resumption(s)")

    def _event(self, event: Event) -> None:
        nick = self.client.nick
        self._welcomed |= isinstance(event, Registered)
        if isinstance(event, Echoed | Received) and self._recorder is not None:
            self._recorder.add(nick, event)
        if isinstance(event, Echoed):
            self._tally.add(event.path, event.response_time_ns / 1e6)
        if isinstance(event, Closed) and not self._left:
            self.failure = f"{event.reason} {len(event.lost)} message(s) may be lost." if event.lost else event.reason
        line = describe(event, nick)
        if line is not None and self._welcomed:
            self.show(line, DIM if isinstance(event, Echoed) else "")
        if isinstance(event, Registered | Closed):
            self.on_change()
