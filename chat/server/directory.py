"""Directory: which nickname is whose."""

from chat.protocol.errors import Refusal
from chat.protocol.names import clean_nick, fold, looks, shortened
from chat.server.members import Session

#: How many nicknames a session may have had: it keeps them all, so that nobody is taken for it.
MAX_NAMES = 8


class Directory:
    """Nicknames as they are compared, each with the session that has it, or has had it."""

    def __init__(self, nick_chars: int) -> None:
        self._nick_chars = nick_chars
        self._owners: dict[str, Session] = {}
        #: The same by how the names look: nobody may be taken for another.
        self._looks: dict[str, Session] = {}

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
            raise Refusal("no_such_nick", f"Nobody here is called {shortened(nick)}.")
        return session

    def clean(self, nick: str) -> str:
        """The nickname as it will be shown; raises Refusal if it cannot be one."""
        return clean_nick(nick, self._nick_chars)

    def take(self, nick: str, session: Session) -> None:
        """Let the session be called so.

        Raises:
            Refusal: it is somebody else's, or looks like it, or the session has had too many.
        """
        name, seen = fold(nick), looks(nick)
        owner = self._owners.get(name, session)
        if owner is not session:
            raise in_use(nick, owner)
        if any(self._looks.get(look, session) is not session for look in seen):
            raise Refusal("nick_in_use", f"Somebody here has, or had, a name that looks like {nick}.")
        if name not in session.names:
            if len(session.names) == MAX_NAMES:
                raise Refusal("too_many_nicks", f"You have had {MAX_NAMES} names; take one of them again.")
            session.names.append(name)
            self._owners[name] = session
        for look in seen.difference(session.looks):
            session.looks.append(look)
            self._looks[look] = session
        session.nick = nick

    def release(self, session: Session) -> None:
        """The session has ended: its names are free."""
        for name in session.names:
            del self._owners[name]
        for look in session.looks:
            del self._looks[look]

    def clear(self) -> None:
        """All have ended."""
        self._owners.clear()
        self._looks.clear()


def in_use(nick: str, owner: Session) -> Refusal:
    """What to tell somebody who wants a nickname that is taken."""
    now = fold(owner.nick) == fold(nick)
    return Refusal(
        "nick_in_use", f"Somebody here {f'is already called {owner.nick}' if now else f'was called {nick} before'}."
    )
