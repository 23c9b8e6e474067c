"""Directory: which nickname is whose."""

from chat.protocol.errors import Refusal
from chat.protocol.names import clean_nick, fold
from chat.server.members import Session

#: How many nicknames a session may have had: it keeps them all, so that nobody is taken for it.
MAX_NAMES = 8


class Directory:
    """Nicknames as they are compared, each with the session that has it, or has had it."""

    def __init__(self, nick_chars: int) -> None:
        self._nick_chars = nick_chars
        self._owners: dict[str, Session] = {}

    def __repr__(self) -> str:
        return f"<Directory of {len(self._owners)}>"

    def find(self, nick: str) -> Session | None:
        """Whose nickname this is, however it is written."""
        return self._owners.get(fold(nick))

    def called(self, nick: str) -> Session:
        """The same, where there must be somebody.

        Raises:
            Refusal: there is nobody.
        """
        session = self.find(nick)
        if session is None:
            raise Refusal("no_such_nick", f"Nobody here is called {nick}.")
        return session

    def clean(self, nick: str) -> str:
        """The nickname as it will be shown; raises Refusal if it cannot be one."""
        return clean_nick(nick, self._nick_chars)

    def take(self, nick: str, session: Session) -> None:
        """Let the session be called so.

        Raises:
            Refusal: it is somebody else's, or the session has had too many.
        """
        owner = self._owners.get(fold(nick), session)
        if owner is not session:
            raise in_use(nick, owner)
        if fold(nick) not in session.names:
            if len(session.names) == MAX_NAMES:
                raise Refusal("too_many_nicks", f"You have had {MAX_NAMES} names; take one of them again.")
            session.names.append(fold(nick))
            self._owners[fold(nick)] = session
        session.nick = nick

    def release(self, session: Session) -> None:
        """The session has ended: its names are free."""
        for name in session.names:
            del self._owners[name]

    def clear(self) -> None:
        """All have ended."""
        self._owners.clear()


def in_use(nick: str, owner: Session) -> Refusal:
    """What to tell somebody who wants a nickname that is taken."""
    now = fold(owner.nick) == fold(nick)
    return Refusal(
        "nick_in_use", f"Somebody here {f'is already called {owner.nick}' if now else f'was called {nick} before'}."
    )
