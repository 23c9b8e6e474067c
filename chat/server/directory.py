"""Directory: which nickname is whose."""

import contextlib

from chat.protocol.errors import Refusal
from chat.protocol.names import clean_nick, fold, looks, shortened
from chat.server.delivery import Keeper
from chat.server.members import Session

#: How many nicknames a session may have had: it keeps them all, so that nobody is taken for it.
MAX_NAMES = 8


class Directory:
    """Nicknames as they are compared, each with the session that has it, or has had it.

    Args:
        nick_chars: no nickname is longer.
        keeper: is told which names are kept for who has a key.
    """

    def __init__(self, nick_chars: int, keeper: Keeper | None = None) -> None:
        self._nick_chars = nick_chars
        self._keeper = keeper
        self._owners: dict[str, Session] = {}
        #: The same by how the names look: nobody may be taken for another.
        self._looks: dict[str, Session] = {}
        self._reserved: list[Session] = []

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
        if session is None or not session.has_begun:
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
        self._give(nick, session)
        if self._keeper is not None and session.key:
            self._keeper.keep_names(session)

    def reserve(self, session: Session, nicks: list[str]) -> None:
        """Since a restart these names wait for who has the session's key."""
        for nick in nicks:
            with contextlib.suppress(Refusal):  # it looks like another by the tables of a newer library
                self._give(nick, session)
        if session.names:
            self._reserved.append(session)

    def free_reserved(self) -> None:
        """The names of those who did not come back wait no longer."""
        for session in self._reserved:
            if not session.has_begun:
                self.release(session)
        self._reserved.clear()

    def _give(self, nick: str, session: Session) -> None:
        name, seen = fold(nick), looks(nick)
        owner = self._owners.get(name, session)
        if owner is not session:
            raise in_use(nick, owner)
        for look in seen:
            if (owner := self._looks.get(look, session)) is not session:
                raise looks_alike(nick, owner)
        if name not in session.names and len(session.names) == MAX_NAMES:
            raise Refusal("too_many_nicks", f"You have had {MAX_NAMES} names; take one of them again.")
        session.names[name] = nick
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
        if self._keeper is not None and session.key:
            self._keeper.free_names(session)

    def clear(self) -> None:
        """All have ended; which names are kept does not change."""
        self._owners.clear()
        self._looks.clear()
        self._reserved.clear()


def in_use(nick: str, owner: Session) -> Refusal:
    """What to tell somebody who wants a nickname that is taken."""
    if not owner.has_begun:
        return looks_alike(nick, owner)
    now = fold(owner.nick) == fold(nick)
    return Refusal(
        "nick_in_use", f"Somebody here {f'is already called {owner.nick}' if now else f'was called {nick} before'}."
    )


def looks_alike(nick: str, owner: Session) -> Refusal:
    """The same of one that looks like another, or may be it."""
    reason = f"Somebody here has, or had, a name that looks like {nick}."
    if not owner.has_begun:
        reason = f"{nick} is, or looks like, a name that is kept for somebody who was here before the server restarted."
    return Refusal("nick_in_use", reason)
