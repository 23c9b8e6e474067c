"""Identity: what we are called, and which lines are therefore ours."""

from chat.client.lines import Logged
from chat.protocol import messages
from chat.protocol.fields import INBOX, LOBBY

#: Most names of our own that are remembered: a server remembers eight.
_MAX_NAMES = 64


class Identity:
    """All the names that we have had in a session: nobody else is called like that as long as it lasts.

    Before it somebody else may have been, and the lines of that time may come again when we come back.
    """

    def __init__(self, nick: str) -> None:
        #: As asked for; once registered, as the server writes it.
        self.nick = nick
        self._names: dict[str, None] = {nick: None}
        #: The last line of the lobby before the session.
        self._begin = 0

    def __repr__(self) -> str:
        return f"<Identity {self.nick}, {len(self._names)} name(s)>"

    @property
    def names(self) -> set[str]:
        """All that we have been called in this session."""
        return {*self._names}

    def begin(self, nick: str, lobby_seq: int) -> None:
        """A session begins after this line of the lobby."""
        self.nick, self._begin = nick, lobby_seq
        self._names = {nick: None}

    def is_ours(self, line: Logged, nick: str) -> bool:
        """Whether it is we who are called so in this line.

        In rooms other than the lobby nobody tells where our session begins: there it also has to say what we said.
        """
        return nick in self._names and (line.log != LOBBY or line.seq > self._begin)

    def renamed(self, line: messages.Renamed, *, is_asked: bool) -> bool:
        """Somebody has another name; return whether that is we.

        Args:
            is_asked: we have asked for a name under the id of this line.
        """
        is_ours = self.is_ours(line, line.nick)
        if line.log not in (LOBBY, INBOX):
            # A room may be the first to tell us, or tell of somebody who had our name before our session.
            is_ours = is_ours and (is_asked or line.to in self._names)
        if is_ours:
            self._add(line.to)
            if line.log == LOBBY:  # which we never leave, so that it has all our names in their order
                self.nick = line.to
        return is_ours

    def settle(self, nick: str, *, is_latest: bool) -> None:
        """The server says that we are called so; `is_latest`: no line that we know is newer than that."""
        self._add(nick)
        if is_latest:
            self.nick = nick

    def _add(self, nick: str) -> None:
        self._names[nick] = None
        if len(self._names) > _MAX_NAMES:
            del self._names[next(iter(self._names))]
